"""What a task hands over for its part of the report: tables, pictures, texts and notes, as data."""

import base64
from dataclasses import dataclass

FILM = 420  # CSS pixels that a film is about wide


@dataclass(frozen=True)
class Figure:
    """A picture of the report, as a PNG, shown at half its pixels, or a GIF. See `harness.report.figures`."""

    title: str
    caption: str
    image: bytes
    front: bool = False  # shown at the top of the task's part, above the collapsed sections
    photograph: bool = False  # keeps its colours on a dark page, as what is drawn on white paper does not

    @property
    def uri(self) -> str:
        kind = "gif" if self.is_gif else "png"
        return f"data:image/{kind};base64," + base64.b64encode(self.image).decode()

    @property
    def width(self) -> int:
        """Width on the page, in CSS pixels: bytes 16 to 20 of a PNG hold its width, 6 to 8 of a GIF.

        A film is enlarged by a whole number to a width at which its caption can be read.
        """
        if self.is_gif:
            width = int.from_bytes(self.image[6:8], "little")
            return width * max(1, round(FILM / max(width, 1)))
        return int.from_bytes(self.image[16:20], "big") // 2

    @property
    def is_gif(self) -> bool:
        return self.image.startswith(b"GIF8")


@dataclass(frozen=True)
class Excerpt:
    """A text of the report, shown as it is."""

    title: str
    text: str


@dataclass(frozen=True)
class ReportTable:
    """A table of the report. `name` is that of the published table it shows, if it shows one."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    name: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report, as a task's `sections(results_dir, context)` returns them.

    Published tables need no work: `reproduce` adds paper-beside-ours for every table in TABLES that no section shows.
    """

    title: str
    lead: str = ""
    tables: tuple[ReportTable, ...] = ()
    figures: tuple[Figure, ...] = ()
    excerpts: tuple[Excerpt, ...] = ()
    notes: tuple[str, ...] = ()
