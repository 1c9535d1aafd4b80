"""The tables of this folder, where `reproduce.execute` finds them."""

from __future__ import annotations

from harness.tables import Table
from reproduce.learned.ablation import ABLATION
from reproduce.learned.alignment import ALIGNMENT
from reproduce.learned.ceiling import CEILING

TABLES: tuple[Table, ...] = (ABLATION, ALIGNMENT, CEILING)
