"""The Transformer: its attention, its dropout, and text that it writes."""
