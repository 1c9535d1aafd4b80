"""The encoder that a run keeps: it turns raw rows into the category ids that the run was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from harness.errors import UserError
from recsys.log.formats import RowFormat, Rule, listed
from recsys.log.rows import Malformed, parse, read_text
from recsys.log.text import Block, header_names
from recsys.log.vocabulary import NO_TEXT, FieldEncoder, frame_values

ENCODER = "encoder.json"  # what an encoder is called in the folder of a run, and of a prepared log
FEW = 10  # lines whose first value may look like a label by chance


@dataclass(frozen=True)
class Encoder:
    """Turns raw rows into the category ids of the log that a model was trained on."""

    layout: RowFormat
    fields: tuple[FieldEncoder, ...]

    @property
    def field_dims(self) -> tuple[int, ...]:
        """Categories of each field, id 0 included."""
        return tuple(field.size for field in self.fields)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits: equal for encoders that give equal ids, different for others."""
        digest = hashlib.sha256()
        for field in self.fields:
            edges, keys = field.edges.astype("<f8"), field.keys.astype("<i8")
            digest.update(f"{field.name}\0{field.rule}\0{len(edges)} {len(keys)}\0".encode())
            digest.update(edges.tobytes() + keys.tobytes())
        return digest.hexdigest()[:16]

    def encode_frame(self, frame: pl.DataFrame) -> np.ndarray:
        """Ids, int32 ``[n, F]``, of columns as `recsys.log.rows.parse` gives them."""
        ids = np.empty((len(frame), len(self.fields)), dtype=np.int32)
        values = frame_values(frame, [(field.name, field.rule) for field in self.fields])
        for place, field in enumerate(self.fields):
            ids[:, place] = field.ids(values[place])
        return ids

    def encode(self, lines: Iterable[str], origin: str = "the rows") -> Tensor:
        """Ids of raw lines, int32 ``[n, F]``, one row per line that is not blank; see `encode_block`."""
        text = "".join(line.rstrip("\r\n") + "\n" for line in lines).removeprefix("\ufeff")
        first, _, rest = text.partition("\n")
        if self.layout.header:
            layout = self.layout_of_header(*header_names(first, self.layout, origin), origin)
            return self.encode_block(Block(rest.encode(), 2), layout, origin)
        block = Block(text.encode(), 1)
        return self.encode_block(block, self.layout_of(block, origin), origin)

    def encode_block(self, block: Block, layout: RowFormat, origin: Path | str) -> Tensor:
        """Ids of a block of raw lines, int32 ``[n, F]``, one row per line that is not blank.

        A category that is not in the vocabulary gets id 0. An empty column is a missing value. A line with too few
        columns is an error, because it does not say which values are missing.

        Raises:
            UserError: a line has the wrong number of columns, or an invalid number or label.
        """
        rows = parse(block, layout)
        self.refuse(rows.malformed, origin)
        return torch.from_numpy(self.encode_frame(rows.frame))

    def refuse(self, malformed: Sequence[Malformed], origin: Path | str) -> None:
        """Raise `UserError` for the first malformed line, if there is one."""
        if malformed:
            bad, others = malformed[0], len(malformed) - 1
            more = f" ({others} more near it {'is' if others == 1 else 'are'} bad as well)" if others else ""
            raise UserError(f"{origin}, line {bad.line}: {bad.reason}{more}. {self.expected}.")

    @property
    def expected(self) -> str:
        """What a line should look like, for messages."""
        return (
            f"Each line should hold {len(self.fields)} fields ({listed(self.layout.names, 5)}), all with or all "
            f"without {self.layout.label}, separated by {self.layout.separator!r}; a missing value is an empty column"
        )

    def layout_of_header(self, names: Sequence[str], separator: str, origin: Path | str) -> RowFormat:
        """The format of a table to predict whose header has these names. A label column is optional, and not read."""
        return self.layout.with_header(names, origin, separator, labelled=False).label_skipped

    def layout_of(self, block: Block, origin: Path | str) -> RowFormat:
        """The format of raw lines without a header, guessed from the first few hundred of them.

        They have a label, which is not read, unless more of them have as many columns as an unlabelled line.

        Raises:
            UserError: they look like labelled lines without their last column.
        """
        labelled, unlabelled = self.layout.label_skipped, self.layout.unlabelled
        if len(read_text(block, unlabelled)[1]) <= len(read_text(block, labelled)[1]):
            return labelled
        if self._lacks_last_column(block, unlabelled):
            raise UserError(
                f"{origin}: its lines have as many columns as lines without {self.layout.label}, but hold what lines "
                f"with {self.layout.label} and without {self.layout.columns[-1]} hold. {self.expected}."
            )
        return unlabelled

    def _lacks_last_column(self, block: Block, unlabelled: RowFormat) -> bool:
        """Whether lines that look unlabelled are labelled ones without their last column.

        They are if every first value is a valid label and more categories are in the vocabulary that way. If no
        category is known either way, ten valid labels decide.
        """
        short = replace(self.layout, columns=self.layout.columns[:-1])
        if self.layout.label not in short.columns or len(short.columns) != len(unlabelled.columns):
            return False
        labels = read_text(block, short)[0][self.layout.label]
        if not labels.is_in([*self.layout.clicks, *self.layout.misses]).all():
            return False
        so, otherwise = self._known(block, short), self._known(block, unlabelled)
        return so > otherwise or (so == otherwise and len(labels) >= FEW)

    def _known(self, block: Block, layout: RowFormat) -> int:
        """How many values of category fields in these lines are in the vocabulary; missing values are not counted."""
        fields = [field for field in self.fields if field.rule is Rule.CATEGORY and field.name in layout.columns]
        frame = read_text(block, layout)[0]
        values = frame_values(frame, [(field.name, field.rule) for field in fields])
        found = zip(fields, values, strict=True)
        return sum(int(((field.ids(value) > 0) & (value != NO_TEXT)).sum()) for field, value in found)

    def to_dict(self) -> dict[str, Any]:
        """The encoder as plain data: strings, numbers, lists, dictionaries."""
        fields = [
            {"name": field.name, "rule": str(field.rule), "edges": field.edges.tolist(), "keys": field.keys.tolist()}
            for field in self.fields
        ]
        return {"layout": self.layout.to_dict(), "fields": fields}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Encoder:
        """The encoder that `to_dict` gave."""
        fields = tuple(
            FieldEncoder(
                name=field["name"],
                rule=Rule(field["rule"]),
                edges=np.array(field["edges"], dtype=np.float64),
                keys=np.array(field["keys"], dtype=np.int64),
            )
            for field in data["fields"]
        )
        return cls(RowFormat.from_dict(data["layout"]), fields)
