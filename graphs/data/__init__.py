"""Graphs: citation graphs by name, a generated one, and your own."""
