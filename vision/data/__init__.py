"""Images and their classes: read from files, drawn, and split for training, choosing and testing."""
