"""What a task's `report.py` is made of: sections as data, figures in one colour per method, panels of curves."""

from harness.report.sections import Excerpt, Figure, ReportTable, Section

__all__ = ["Excerpt", "Figure", "ReportTable", "Section"]
