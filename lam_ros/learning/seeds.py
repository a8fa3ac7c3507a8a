"""Which simulated episodes are for what."""

UNSEEN_SEED = 1_000_000  # evaluation starts here, far from every seed that demonstrations use
DISTURBANCE = 0.02  # rad: how much the demonstrators have to correct, unless asked otherwise
