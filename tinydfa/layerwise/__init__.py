"""Rules that replace the backward pass of single layers: which layers, by what, put in their place and back."""
