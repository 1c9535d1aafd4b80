"""The best practices of arXiv 1906.04554 on CIFAR-10: activations, normalisation, dropout, batch norm, for FC and CNN.

From its release: plain SGD of 5e-4, cross-entropy, 50 epochs, batches of 128 (a last partial one is dropped),
standardised images. The top layer follows the mean of the loss over a batch; the hidden layers receive the error
**summed** over the batch, through one Gaussian matrix that all layers share, rescaled by each layer's width
(`error_sum` and `scaling` of `tinydfa.Feedback`). Hidden layers therefore learn 128 times faster than in a mean-reduced
DFA at this rate.

Backpropagation is ours (the release compares with published figures): with the mean alone this rate hardly moves the
network, so it follows the loss summed over the batch, in all layers.

Names: ``principled_<network>_<variant>_<method>``, such as ``principled_fc_tanh_dfa``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tinydfa import Feedback, Method
from vision.preset import Preset

RULE = Feedback(distribution="gaussian", scaling="point", error_sum=True)
METHODS = (Method.BP, Method.DFA, Method.SHALLOW)

fc = Preset(
    method=Method.DFA,
    hidden=(800, 800, 800),
    loss="ce",
    feedback=RULE,
    optimizer="sgd",
    lr=5e-4,
    batch=128,
    drop_last=True,
    epochs=50,
    normalise=True,
)
cnn = replace(fc, model="cnn", pad_to=32)

VARIANTS: dict[str, tuple[Preset, str, dict[str, Any]]] = {
    "fc_tanh": (fc, "FC, tanh", {}),
    "fc_relu": (fc, "FC, ReLU", {"act": "relu"}),
    "fc_leaky-0.5": (fc, "FC, leaky ReLU 0.5", {"act": "leaky-relu-0.5"}),
    "fc_leaky-0.1": (fc, "FC, leaky ReLU 0.1", {"act": "leaky-relu-0.1"}),
    "fc_leaky-0.01": (fc, "FC, leaky ReLU 0.01", {"act": "leaky-relu-0.01"}),
    "fc_unnormalised": (fc, "FC, feedback not normalised", {"feedback": replace(RULE, scaling="none")}),
    "fc_dropout-0.5": (fc, "FC, dropout 0.1 input, 0.5", {"input_dropout": 0.1, "inner_dropout": 0.5}),
    "fc_dropout-0.1": (fc, "FC, dropout 0.1 input, 0.1", {"input_dropout": 0.1, "inner_dropout": 0.1}),
    "fc_batch-norm": (fc, "FC, batch norm", {"batch_norm": True}),
    "cnn_tanh": (cnn, "CNN, tanh", {}),
    "cnn_unnormalised": (cnn, "CNN, feedback not normalised", {"feedback": replace(RULE, scaling="none")}),
    "cnn_dropout-0.5": (cnn, "CNN, dropout 0.1 input, 0.5", {"input_dropout": 0.1, "inner_dropout": 0.5}),
    "cnn_dropout-0.1": (cnn, "CNN, dropout 0.1 input, 0.1", {"input_dropout": 0.1, "inner_dropout": 0.1}),
    "cnn_batch-norm": (cnn, "CNN, batch norm", {"batch_norm": True}),
}


def _preset(base: Preset, method: str, changes: dict[str, Any]) -> Preset:
    return replace(base, method=method, reduction="sum" if method is Method.BP else "mean", **changes)


PRESETS = {
    f"principled_{name}_{method.value}": _preset(base, method, changes)
    for name, (base, _, changes) in VARIANTS.items()
    for method in METHODS
}
