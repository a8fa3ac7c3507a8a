"""Learning: losses, augmentation, training and evaluation."""
