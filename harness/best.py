"""The best weights of a training so far, and when to give up waiting for better ones (early stopping)."""

import math
from typing import Any

from torch import Tensor, nn


class BestWeights:
    """The weights with the lowest validation score so far: a loss, or what is to grow with its sign changed.

    Args:
        patience: Validations in a row that bring nothing better before it gives up.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.score, self.step, self.worse = math.inf, 0, 0  # of the best, when it was; validations since
        self.weights: dict[str, Tensor] = {}

    def update(self, score: float, step: int, model: nn.Module) -> bool:
        """Keep the weights after `step`, on the CPU, if they are better than all before; returns whether they are."""
        if not score < self.score:
            self.worse += 1
            return False
        self.score, self.step, self.worse = score, step, 0
        self.weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        return True

    @property
    def given_up(self) -> bool:
        """Whether as many validations as the patience have brought nothing better."""
        return self.worse >= self.patience

    def restore(self, model: nn.Module) -> None:
        """Put the best weights into `model`."""
        model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to know."""
        return {"score": self.score, "step": self.step, "worse": self.worse, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.score, self.step, self.worse = state["score"], state["step"], state["worse"]
        self.weights = state["weights"]
