"""Scenes from files: formats of cameras and pictures, published archives, and a scene that needs no files."""
