"""Small fully connected and convolutional networks, trained with and without backpropagation."""
