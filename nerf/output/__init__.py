"""What comes out of a trained field: scores, pictures and films."""
