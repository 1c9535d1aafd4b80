"""All tables of this folder, collected from the studies."""

from __future__ import annotations

from harness.tables import Table
from vision.biotorch import tables as biotorch
from vision.bottleneck import tables as bottleneck
from vision.drtp import tables as drtp
from vision.iacolippo import tables as iacolippo
from vision.principled import tables as principled
from vision.rates import tables as rates

TABLES: tuple[Table, ...] = (
    *drtp.TABLES,
    *principled.TABLES,
    *bottleneck.TABLES,
    *biotorch.TABLES,
    *iacolippo.TABLES,
    *rates.TABLES,
)
