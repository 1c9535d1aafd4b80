"""What one forward pass is: its settings, what its points recorded, the sizes that follow, and what is refused."""
