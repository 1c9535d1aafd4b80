"""Predictions of a finished run."""
