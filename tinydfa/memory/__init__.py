"""Training with one block's graph at a time: the first pass, the second run, and what is refused."""
