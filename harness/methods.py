"""Training methods by name, as commands, results, tables and figures store them. A rule describes itself.

A name is that of one of the library's rules, or ``file.py:Class``. The library is imported by the first function that
needs it: importing torch takes a second.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from harness.errors import UserError

if TYPE_CHECKING:
    from tinydfa import Rule


def named(method: str) -> str:
    """`method`, as a member of `tinydfa.Method` if it is one, so that ``is`` tells it.

    Raises:
        UserError: no rule has that name; the message lists those there are.
    """
    from tinydfa import Method

    rule_of(method)
    return Method(method) if method in list(Method) else str(method)


@cache
def rule_of(method: str) -> Rule:
    """The rule that a name means, with its options at their defaults.

    Raises:
        UserError: no rule has that name.
    """
    from tinydfa import DFAError, find_rule

    try:
        return find_rule(str(method))
    except DFAError as error:
        raise UserError(f"--method {method}: {error}") from error


def slug(method: str) -> str:
    """A short name of a method, for folders."""
    return rule_of(method).name


def label(method: str) -> str:
    """The name of a method in tables and figures, with its options; the class's name if its file no longer exists.

    Example:
        >>> label("sdfa"), label("fitted(memory=0.5,ridge=0.1)"), label("gone.py:Clipped")
        ('sDFA', 'Fitted (memory=0.5, ridge=0.1)', 'Clipped')
    """
    from tinydfa.rules.registry import split_options

    try:
        name = rule_of(method).label
    except UserError:
        return str(method).rpartition(":")[2]
    options = ", ".join(f"{option}={value!r}" for option, value in split_options(str(method))[1].items())
    return f"{name} ({options})" if options else name


def colour(method: str) -> str:
    """A method's colour in figures."""
    try:
        return rule_of(method).colour
    except UserError:
        return "#999999"


def check_compile(method: str) -> None:
    """Refuse to compile a model under a rule that does not support it.

    Raises:
        UserError: the rule looks at some passes, which one compiled graph cannot.
    """
    rule = rule_of(method)
    if rule.looks:
        raise UserError(
            f"--compile: {rule} looks at some passes in another way than at others, which one compiled graph cannot. "
            "Leave out --compile."
        )


def check_shares(method: str, processes: int) -> None:
    """Refuse a rule that gives other gradients if each of several processes passes it a share of the batch.

    Raises:
        UserError: what the rule makes of a sample's error depends on the other samples, or what it learns on a factor
            on the loss that it does not carry.
    """
    if processes == 1:
        return
    rule = rule_of(method)
    if _looks_at_others(rule):
        raise UserError(
            f"--method {method} makes something else of a sample's error when other samples stand beside it, and "
            f"{processes} processes have a share of the batch each. Give tdfa a threshold, as in "
            "--method 'tdfa(threshold=0.001)', leave out the similarity of les, or start it without accelerate or "
            "torchrun."
        )
    if rule.feels_loss_scale and not rule.carries_loss_scale:
        raise UserError(
            f"--method {method} learns from the error and encodes it otherwise under another factor on the loss, so "
            f"that {processes} processes would not learn what one does. Start it without accelerate or torchrun."
        )


def _looks_at_others(rule: Rule) -> bool:
    """Whether a rule's encoding of one sample depends on the others; tried on errors drawn for it."""
    import torch

    from tinydfa.pipelining.checks import mixes_samples

    if not rule.broadcasts:
        return False
    error = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    try:
        return mixes_samples(rule, error)
    except RuntimeError:  # it expects errors of another width
        return False


def explained() -> list[tuple[str, str]]:
    """The label and the sentence of every rule of the library that has one, for readers of a report."""
    from tinydfa.rules import registered

    return [(kind.label, kind.explained) for kind in registered().values() if kind.explained]


def known() -> list[str]:
    """The names of the library's rules."""
    from tinydfa.rules import registered

    return list(registered())
