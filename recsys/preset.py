"""What a training is: a model, a method and their hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from harness.errors import UserError
from tinydfa import Method

EmbeddingFeedback = Literal["on", "off", "through"]
MODELS = {"fm": "FM", "deepfm": "DeepFM", "dcn": "DCN", "autoint": "AutoInt", "afn": "AFN"}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """All that decides a number; the data set, paths and devices belong to the command line."""

    model: str = "deepfm"
    """fm, deepfm, dcn, autoint or afn."""
    method: str = Method.BP
    """How hidden layers learn."""
    lr: float
    """Learning rate of Adam, constant; no weight decay."""
    dropout: float = 0.0
    """Dropout probability after every hidden layer; in AutoInt of the attention, too."""
    batch: int = 2048
    """Rows of a batch, over all processes."""
    max_epochs: int = 15
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
        if self.lr <= 0 or self.batch < 2 or self.max_epochs < 1 or self.patience < 1:
            found = f"lr {self.lr}, batch {self.batch}, max_epochs {self.max_epochs}, patience {self.patience}"
            raise UserError(f"{found}: all must be above 0, and batch above 1.")
        if self.embedding_feedback not in get_args(EmbeddingFeedback):
            raise UserError(f"embedding_feedback is {self.embedding_feedback!r}; it must be on, off or through.")
        if self.attention % self.heads:
            raise UserError(f"attention is {self.attention} wide; {self.heads} heads must divide it.")
