"""Exact solvers: dynamic programming, branch and bound with its trace, and the solvers of OR-Tools and SciPy."""
