"""All tables of this folder, by source."""

from __future__ import annotations

from harness.tables import Table
from vision import (
    tables_biotorch,
    tables_bottleneck,
    tables_drtp,
    tables_iacolippo,
    tables_notebook,
    tables_principled,
    tables_rates,
)

TABLES: tuple[Table, ...] = (
    *tables_drtp.TABLES,
    *tables_principled.TABLES,
    *tables_bottleneck.TABLES,
    *tables_biotorch.TABLES,
    *tables_notebook.TABLES,
    *tables_iacolippo.TABLES,
    *tables_rates.TABLES,
)
