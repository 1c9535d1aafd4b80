"""Records that a checkpoint keeps."""

from __future__ import annotations

from typing import Any


class Record:
    """A dataclass that is kept by its fields: give it to `Run.resume` and `Run.save` as it is.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Progress(Record):
        ...     epoch: int = 0
        >>> progress = Progress()
        >>> progress.load_state_dict({"epoch": 3})
        >>> progress.state_dict()
        {'epoch': 3}
    """

    def state_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; fields that an older checkpoint lacks get their defaults."""
        type(self).__init__(self, **state)
