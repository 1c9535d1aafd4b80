"""What to try when DFA is worse than shallow training: one small Transformer as people write it, changed in one way."""
