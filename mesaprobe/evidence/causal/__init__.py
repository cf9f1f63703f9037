"""Lines that intervene: E3, E7 and its parts, E8, E9, E10b."""
