"""The radiance field: its networks, where they are evaluated along a ray, and how a ray is rendered."""
