"""The Transformer, its attention and its dropout."""
