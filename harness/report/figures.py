"""Pictures for the report, as PNG bytes: one colour per method in every figure, which its rule says.

Colours of the library's rules: Okabe and Ito's palette, https://jfly.uni-koeln.de/color/, which colour-blind readers
can tell apart; backpropagation, the reference, is dark grey.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

WIDEST = 9.8  # inches: what the page has room for
DPI = 200  # twice the 100 dots per inch at which a browser shows it


def band(axes: Any, runs: Sequence[Sequence[float | None]], label: str, colour: str, x: Any = None) -> None:
    """Curves of several runs: their mean, and a band of one standard deviation.

    Args:
        axes: Where to draw.
        runs: Values per step of each run; None is a gap. They are cut to the shortest.
        label: For the legend.
        colour: As matplotlib takes it; of a method `harness.methods.colour`.
        x: Positions of the values; 1, 2, ... if left out.
    """
    length = min(len(run) for run in runs)
    values = np.array([[np.nan if value is None else value for value in run[:length]] for run in runs], float)
    position = np.arange(1, length + 1) if x is None else np.asarray(x[:length], float)
    mean = values.mean(axis=0)
    axes.plot(position, mean, color=colour, label=label, linewidth=1.5)
    if len(values) > 1:
        std = values.std(axis=0, ddof=1)
        axes.fill_between(position, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)


def canvas(width: float, height: float) -> "Canvas":
    """An empty figure of `width` by `height` inches, in the report's look, independent of the user's matplotlib."""
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(width, height), layout="constrained", facecolor="white")


def png(figure: "Canvas", *, whole: bool = False) -> bytes:
    """The figure as a PNG, at twice the size at which the page shows it.

    Args:
        figure: The figure.
        whole: As large as what is drawn, also beyond the canvas; else as large as the canvas.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight" if whole else None)
    return buffer.getvalue()
