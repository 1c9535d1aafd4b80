"""Graph learning without backpropagation: node classification, link prediction and embeddings on citation graphs."""
