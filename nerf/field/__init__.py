"""The radiance field: its networks, where along a ray they are asked, and what a ray sees of it."""
