"""BioTorch's benchmark of feedback methods."""
