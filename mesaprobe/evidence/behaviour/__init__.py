"""Lines read off choices alone: E1, E1b, E2, E2b, E4, E10c, and what they are compared with."""
