"""Improvement of whole tours: local search with its trajectory, simulated annealing, routing search."""
