"""Choices by name: enums whose typos list the names that exist, and the names of the rules this library began with."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from tinydfa.errors import UnknownMethodError

Named = TypeVar("Named", bound="Choice")


class Choice(StrEnum):
    """An enum whose members are found by name."""

    @classmethod
    def parse(cls: type[Named], value: Named | str) -> Named:
        """The member called `value`.

        Raises:
            UnknownMethodError: no member has that name; the message lists all of them.
        """
        try:
            return cls(value)
        except ValueError:
            names = ", ".join(member.value for member in cls)
            raise UnknownMethodError(f"unknown {cls.__name__.lower()} {value!r}. Choose one of: {names}.") from None


class Method(StrEnum):
    """Names of rules, for scripts that like members better than strings; ``Method.DFA == "dfa"``.

    What a rule does, and its facts, stand with the rule (`tinydfa.rules`); a rule needs no member here.
    """

    BP = "bp"
    SHALLOW = "shallow"
    DFA = "dfa"
    SDFA = "sdfa"
    TDFA = "tdfa"
    DRTP = "drtp"
    FA = "fa"
    USF = "usf"
    BRSF = "brsf"
    FRSF = "frsf"
