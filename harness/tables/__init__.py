"""Published tables as data, and the results that answer them."""

from harness.tables.table import Cell, RunContext, Table

__all__ = ["Cell", "RunContext", "Table"]
