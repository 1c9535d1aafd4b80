"""Perplexities of Table 5 of arXiv 2006.12878 (WikiText-103), by preset.

The paper itself could not be read; these are quoted from it in several later texts, which may all go back to one
reading. The other steps of the table (noam, Adam, beta2 under DFA) are quoted nowhere that we found, so they are not
here. They are per token of a lower-cased BPE vocabulary of 32,000, on the validation set: the code release scores
nothing else. A perplexity of our own with another vocabulary compares with none of them.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A number of the table, and what is known about it."""

    perplexity: float  # per token, validation set
    note: str


SEVERAL = "quoted in several texts"
PUBLISHED: dict[str, Published] = {
    "bp": Published(29.8, SEVERAL),
    "bp_beta2": Published(34.0, "about; from the comment in one text"),
    "macro_schedule": Published(52.0, SEVERAL),
    "micro_schedule": Published(93.3, SEVERAL),
    "shallow": Published(400.0, "the text says: over 400"),
}
