"""What the lines measure on: decisions, a network's own completions, pairs of states, models of the choice."""
