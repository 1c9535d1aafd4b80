"""The published networks and their layers."""
