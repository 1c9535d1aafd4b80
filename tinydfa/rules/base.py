"""What a training rule is: an object that says what a hidden layer receives, and all there is to know about itself.

A rule of your own is a subclass, most often of `Broadcast` with an `encode`:

    class Clipped(tinydfa.Broadcast):
        def encode(self, error, target):
            return error.clamp(-0.1, 0.1)

It holds options and no state, so that one object may train several models. What a rule learns belongs to the
attachment (see `tinydfa.rules.learned`).

Letters: e or `error` the gradient of the loss at the output, ``[B, c]``; F feedback, ``[c, D]``.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

OTHER = "#999999"


class Rule:
    """How the layers below the output learn. The class attributes are what the library and the tables ask a rule.

    A new rule derives from `Broadcast`, `tinydfa.rules.learned.Learning` or `tinydfa.rules.layerwise.Layerwise`.
    """

    name: ClassVar[str] = ""
    """On the command line and in results; the class's own name if left out."""
    label: ClassVar[str] = ""
    """In tables and figures; the name if left out."""
    colour: ClassVar[str] = OTHER
    """In figures."""
    explained: ClassVar[str] = ""
    """One sentence for readers of a report."""
    source: ClassVar[str] = ""
    """Where it is published."""

    cuts: ClassVar[bool] = False
    """Feedback points stop the backpropagated gradient."""
    broadcasts: ClassVar[bool] = False
    """The head projects a signal straight to the feedback points."""
    layerwise: ClassVar[bool] = False
    """The signal walks down the layers through other matrices than the transposed weights."""
    carries_loss_scale: ClassVar[bool] = True
    """A factor on the loss reaches the hidden layers."""
    reaches_all: ClassVar[bool] = True
    """Every layer gets a gradient."""
    needs_target: ClassVar[bool] = False
    """`encode` reads the targets: ``attachment.target = y`` before the model is called."""
    needs_error: ClassVar[bool] = True
    """`encode` reads the error, not its shape and type alone: False where the targets are enough."""
    local: ClassVar[bool] = False
    """The signal of a point comes from what passes it and the targets (`tinydfa.rules.local`)."""
    learns: ClassVar[bool] = False
    """The feedback changes in training."""
    feels_loss_scale: ClassVar[bool] = False
    """A factor on the loss that nobody tells would change what the feedback becomes."""
    looks: ClassVar[bool] = False
    """Some training passes show more than they need to train (`tinydfa.rules.learned`)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = vars(cls).get("name") or cls.__name__
        cls.label = vars(cls).get("label") or cls.name

    @property
    def options(self) -> dict[str, Any]:
        """The options this object was made with, by name."""
        return dict(vars(self))

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"


class Broadcast(Rule):
    """Every point receives ``encode(e, target) @ F``, its columns of it, scaled as the feedback says.

    Override `encode`. A rule that does is taken not to carry a factor on the loss (as a clamp or a sign does not),
    unless it says ``carries_loss_scale = True``: loss scaling is then undone before `encode` and done again after it.
    """

    cuts = True
    broadcasts = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "encode" in vars(cls) and "carries_loss_scale" not in vars(cls):
            cls.carries_loss_scale = False

    def encode(self, error: Tensor, target: Tensor | None) -> Tensor:
        """What is projected in place of the error.

        Args:
            error: e, ``[B, c]``. It keeps the loss's reduction: under a mean over samples each row carries 1/B.
            target: What ``attachment.target`` was set to before this forward pass, or None.

        Returns:
            ``[B, c]``.
        """
        return error
