"""The best weights so far, and early stopping."""

import math
from typing import Any, Literal

from torch import Tensor, nn


class BestWeights:
    """The weights with the best validation score so far.

    Args:
        patience: Validations in a row without improvement before training stops.
        mode: Whether a lower score is better, as of a loss ("min"), or a higher one, as of an accuracy ("max").
    """

    def __init__(self, patience: int, mode: Literal["min", "max"] = "min") -> None:
        self.patience = patience
        self._sign = 1 if mode == "min" else -1
        self._lowest, self.step, self.worse = math.inf, 0, 0  # signed score of the best, when; validations since
        self.weights: dict[str, Tensor] = {}

    def update(self, score: float, step: int, model: nn.Module) -> bool:
        """Keep the weights after `step`, on the CPU, if they are better than all before; returns whether they are."""
        if not self._sign * score < self._lowest:
            self.worse += 1
            return False
        self._lowest, self.step, self.worse = self._sign * score, step, 0
        self.weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        return True

    @property
    def score(self) -> float:
        """The best so far; infinite (in the wrong direction) before the first."""
        return self._sign * self._lowest

    @property
    def given_up(self) -> bool:
        """Whether as many validations as the patience have passed without improvement."""
        return self.worse >= self.patience

    def restore(self, model: nn.Module) -> None:
        """Put the best weights into `model`."""
        model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        return {"score": self._lowest, "step": self.step, "worse": self.worse, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._lowest, self.step, self.worse = state["score"], state["step"], state["worse"]
        self.weights = state["weights"]
