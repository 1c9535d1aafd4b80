"""What comes out of a trained field: scores, alignment with backpropagation, pictures and films."""
