"""What a training is: a model, a method and their hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import tyro

from harness.config import Method as MethodOption
from harness.errors import UserError
from harness.methods import named
from tinydfa import Method

EmbeddingFeedback = Literal["on", "off", "through"]
MODELS = {"fm": "FM", "deepfm": "DeepFM", "dcn": "DCN", "autoint": "AutoInt", "afn": "AFN"}
DEEP = ("deepfm", "dcn", "autoint", "afn")  # models with hidden layers
# Options that have an effect only with some models.
NEEDS = {
    "dropout": ("model", DEEP),
    "mlp": ("model", DEEP),
    "embedding_feedback": ("model", DEEP),
    "cross_layers": ("model", ("dcn",)),
    "attention": ("model", ("autoint",)),
    "heads": ("model", ("autoint",)),
    "attention_layers": ("model", ("autoint",)),
    "neurons": ("model", ("afn",)),
    "linear_std": ("model", ("fm", "deepfm", "autoint", "afn")),
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """All that decides a number; the data set, paths and devices belong to the command line."""

    model: str
    """fm, deepfm, dcn, autoint or afn."""
    method: MethodOption = Method.BP
    lr: float
    """Learning rate of Adam, constant; no weight decay."""
    dropout: float = 0.0
    """Dropout probability after every hidden layer; in AutoInt of the attention, too."""
    batch: int = 2048
    """Rows of a batch, over all processes."""
    max_epochs: Annotated[int, tyro.conf.arg(aliases=["--epochs"])] = 15
    """Passes over the training rows at most."""
    patience: int = 3
    """Epochs without a better validation AUC before training stops."""
    clip_norm: float | None = None
    """Clip the norm of all gradients together."""
    embed: int = 16
    """Width of an embedding."""
    mlp: tuple[int, ...] = (400, 400, 400)
    """Widths of the perceptron's hidden layers."""
    cross_layers: int = 6
    """Layers of DCN's cross network."""
    attention: int = 32
    """Width of AutoInt's attention, over all heads."""
    heads: int = 2
    """Heads of AutoInt's attention."""
    attention_layers: int = 3
    """Layers of AutoInt's attention."""
    neurons: int = 1500
    """Logarithmic neurons of AFN."""
    linear_std: float = 1.0
    """Standard deviation of the linear term's initial weights; torchfm's is 1."""
    embedding_feedback: EmbeddingFeedback = "on"
    """What embeddings learn from the hidden layers: the method's signal at a feedback point (on), nothing (off), or the
    gradient of the first hidden layers (through)."""
    sparse_embeddings: bool = False
    """Update only the rows of a batch (SparseAdam), so that the time of a step does not grow with the categories."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout is {self.dropout}; it must lie in [0, 1).")
        if not 0 < self.lr < 10:
            raise UserError(f"lr is {self.lr}; it must lie between 0 and 10, such as 0.001.")
        if self.batch < 2:
            raise UserError(f"batch is {self.batch}; batch normalisation needs at least 2 rows.")
        least = {"max_epochs": 1, "patience": 1, "embed": 1, "cross_layers": 1, "attention": 1, "heads": 1}
        for name, number in (least | {"attention_layers": 1, "neurons": 1}).items():
            if getattr(self, name) < number:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least {number}.")
        if not self.mlp or min(self.mlp) < 1:
            raise UserError(f"mlp is {self.mlp}; it must be one or more widths of at least 1.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UserError(f"clip_norm is {self.clip_norm}; it must be above 0.")
        if not 0 <= self.linear_std < 100:
            raise UserError(f"linear_std is {self.linear_std}; it must lie in [0, 100).")
        if self.embedding_feedback not in get_args(EmbeddingFeedback):
            raise UserError(f"embedding_feedback is {self.embedding_feedback!r}; it must be on, off or through.")
        if self.attention % self.heads:
            raise UserError(f"attention is {self.attention} wide; {self.heads} heads must divide it.")
        object.__setattr__(self, "method", named(self.method))
