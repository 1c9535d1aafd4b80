"""All tables of the task, the published ones first."""

from __future__ import annotations

from graphs.tables.own import DNA_LABEL, GAP, GAP_GRID, PSEUDO_ERRORS, PSEUDO_ERRORS_GRID
from graphs.tables.paper import FIGURE2, SEEDS, TABLE3, TABLE4, TABLEA2, TABLEA4
from harness.tables import Table

PUBLISHED = (TABLE3, TABLEA4, TABLEA2, TABLE4, FIGURE2)
TABLES: tuple[Table, ...] = (*PUBLISHED, GAP, GAP_GRID, PSEUDO_ERRORS, PSEUDO_ERRORS_GRID, DNA_LABEL, SEEDS)
