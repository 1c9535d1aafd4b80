"""Tests of the project, one folder per package."""
