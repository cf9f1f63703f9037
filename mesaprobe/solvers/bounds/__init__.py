"""Lower bounds on the optimal tour, at the root and at any state."""
