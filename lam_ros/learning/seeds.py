"""Which episodes are for what."""

UNSEEN_SEED = 1_000_000  # evaluation starts here, far from every seed that demonstrations use
