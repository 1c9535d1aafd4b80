"""The click models, and the layers that they share."""
