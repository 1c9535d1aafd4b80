"""The option of training commands that says what a forward pass keeps for the backward pass."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import UserError
from harness.methods import rule_of

REPLAY = "replay"
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """The argument of the `train` commands whose models can free the graphs of a forward pass."""

    memory: str | None = None
    """What a forward pass keeps: replay, one block at a time, and the model runs forward again when the error is known;
    or as many of the topmost blocks as fit in so many bytes, such as 800M or 2G. Everything if left out."""

    def keeps(self, method: str) -> str | int | None:
        """`memory=` of `tinydfa.attach`.

        Raises:
            UserError: it is neither, or `method` cannot train without the graphs, or the model is to be compiled.
        """
        if self.memory is None:
            return None
        choice = REPLAY if self.memory == REPLAY else bytes_of(self.memory)
        if getattr(self, "compile", False):
            raise UserError(f"--memory {self.memory} runs a model block by block, --compile as a whole. Leave one out.")
        from tinydfa import DFAError
        from tinydfa.memory.choice import refuse_rule

        try:
            refuse_rule(choice, rule_of(method))
        except DFAError as error:
            raise UserError(f"--memory {self.memory}: {error}") from error
        return choice


def bytes_of(text: str) -> int:
    """A number of bytes, such as 4096, 64K, 800M or 2G.

    Raises:
        UserError: it is none.
    """
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in UNITS else (text, "")
    if not number.isdecimal():
        raise UserError(f"--memory {text}: give replay, or a number of bytes such as 800M or 2G.")
    return int(number) * UNITS.get(unit, 1)
