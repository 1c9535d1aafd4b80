"""Which feedback points of a forward pass hang together below: their signals must then go down in one backward pass.

A point cuts the graph, so what hangs below it usually reaches down to the points before it and no further. Where a
residual stream goes around a point, two points (or a point and the output) share what lies below the fork, and autograd
adds up there what comes from both. Found by walking each point's graph once, as the point is passed. A graph may be
freed right after: what is noted on its nodes is freed with them.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

LEAF = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]
NOTE = "tinydfa"  # key in a node's metadata
_MARKS = itertools.count()


class Tangles:
    """The graphs of one forward pass, numbered in the order they are added.

    Args:
        outside: Tensors that come from outside the model: walks end there.

    Attributes:
        leaves: The leaves that were reached, by id.

    Example:
        >>> w = torch.ones(2, requires_grad=True)
        >>> fork = w * 2
        >>> tangles = Tangles([])
        >>> tangles.add([fork * 3]), tangles.add([w * 4]), tangles.add([fork * 5])
        (0, 1, 2)
        >>> tangles.groups(), [int(leaf is w) for leaf in tangles.shared()]
        ([0, 1, 0], [1])
    """

    def __init__(self, outside: Iterable[Tensor]) -> None:
        self.leaves: dict[int, Tensor] = {}
        self._outside = [tensor.grad_fn for tensor in outside if tensor.grad_fn is not None]
        self._member: dict[int, int] = {}  # of each mark
        self._parent: list[int] = []
        self._reached: dict[int, set[int]] = {}  # members by leaf

    def add(self, roots: Sequence[Tensor], visit: Any = None) -> int:
        """Walk the graphs of `roots` as far as they are new; returns the number of what they make together.

        Args:
            roots: Tensors; those without a graph are no matter.
            visit: Called with every node that is new.
        """
        number, mark = len(self._parent), next(_MARKS)
        self._parent.append(number)
        self._member[mark] = number
        for root in roots:
            if root.requires_grad and root.grad_fn is None:
                self._reach(root, number)
        todo: list[Any] = [root.grad_fn for root in roots if root.grad_fn is not None]
        while todo:
            node = todo.pop()
            if type(node) is LEAF:
                self._reach(node.variable, number)
            elif not any([node is other for other in self._outside]):  # noqa: C419
                note = node.metadata
                met = self._member.get(note.get(NOTE, -1))
                if met is None:
                    note[NOTE] = mark
                    todo += [below for below, _ in node.next_functions if below is not None]
                    if visit is not None:
                        visit(node)
                elif met != number:
                    self._parent[self._root(met)] = self._root(number)
        return number

    def groups(self) -> list[int]:
        """For each number the least one that it hangs together with."""
        least: dict[int, int] = {}
        return [least.setdefault(self._root(number), number) for number in range(len(self._parent))]

    def shared(self) -> list[Tensor]:
        """Leaves that several groups end in (tied weights)."""
        groups = self.groups()
        return [self.leaves[key] for key, reached in self._reached.items() if len({groups[n] for n in reached}) > 1]

    def below(self, group: int) -> list[Tensor]:
        """The leaves that a group ends in."""
        groups = self.groups()
        return [self.leaves[key] for key, reached in self._reached.items() if group in {groups[n] for n in reached}]

    def _reach(self, leaf: Tensor, number: int) -> None:
        self.leaves[id(leaf)] = leaf
        self._reached.setdefault(id(leaf), set()).add(number)

    def _root(self, number: int) -> int:
        while self._parent[number] != number:
            number = self._parent[number]
        return number


class Weight:
    """Adds up what the nodes of a graph keep for their backward pass, in bytes; use as `visit`.

    Args:
        apart: Places in memory that are taken anyway, and do not count.
        input: One more.
    """

    def __init__(self, apart: Collection[int] = (), input: int = -1) -> None:
        self.sizes: dict[int, int] = {}  # by place in memory
        self._apart, self._input = apart, input

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())

    def counted(self, tensor: Tensor) -> int:
        """The place of a tensor that is among what is kept; -1 if it is not."""
        return address(tensor) if address(tensor) in self.sizes else -1

    def __call__(self, node: Any) -> None:
        for tensor in kept_by(node):
            where = address(tensor)
            if where not in self._apart and where != self._input:
                self.sizes[where] = tensor.untyped_storage().nbytes()


def address(tensor: Tensor) -> int:
    """Where a tensor lies in memory; of one that is spread over processes, where this process has its part."""
    return getattr(tensor, "_local_tensor", tensor).untyped_storage().data_ptr()


def kept_by(node: Any) -> list[Tensor]:
    """The tensors that a node of the graph has saved."""
    if hasattr(node, "saved_tensors"):
        return [tensor for tensor in node.saved_tensors if tensor is not None]
    found: list[Tensor] = []
    for name in dir(type(node)):
        if name.startswith("_saved_"):
            saved = getattr(node, name)
            found += [item for item in (saved if isinstance(saved, tuple | list) else [saved]) if _is_tensor(item)]
    return found


def _is_tensor(item: Any) -> bool:
    return isinstance(item, Tensor)
