"""The pure core: facts in, decisions out. No await, clock, randomness, I/O or logging."""
