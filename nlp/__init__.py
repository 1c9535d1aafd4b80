"""A Transformer language model, trained with and without backpropagation: text to tokens, training, samples."""
