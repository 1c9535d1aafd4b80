"""What comes out of a trained model: perplexity, alignment with backpropagation, and text that it writes."""
