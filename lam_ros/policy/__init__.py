"""The Large Action Model: perception (CNN), action (LSTM and its heads), and the stateful policy made of both."""
