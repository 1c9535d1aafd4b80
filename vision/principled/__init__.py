"""Best practices for direct feedback alignment (Launay et al. 2019, sections 3 and 4)."""
