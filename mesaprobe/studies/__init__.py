"""Studies over many trained networks: whether changes of the training set-up prevent inner search."""
