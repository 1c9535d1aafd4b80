"""Click-through prediction trained by direct feedback alignment."""
