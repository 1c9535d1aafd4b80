"""Neural radiance fields without backpropagation: views of a scene synthesised from a few dozen pictures of it."""
