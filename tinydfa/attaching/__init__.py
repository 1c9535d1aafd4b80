"""Putting feedback points and a head on a model that knows nothing of them, and taking them off without a trace."""
