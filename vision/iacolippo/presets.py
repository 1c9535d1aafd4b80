"""The MNIST experiment of iacolippo's DFA notebooks (`dfa-mnist.ipynb`): 784-800-10, as simple as it can be.

Tanh, sigmoid and binary cross-entropy; weights, biases and feedback standard normal; pixels in [0, 1]; plain SGD of
1e-4 on gradients summed over batches of 200; at most 100 epochs, ended when the training error changes by no more than
1e-4.
"""

from __future__ import annotations

from dataclasses import replace

from tinydfa import Feedback, Method
from vision.preset import Preset

notebook = Preset(
    method=Method.BP,
    hidden=(800,),
    init="normal",
    loss="bce-sum",
    reduction="sum",
    feedback=Feedback(distribution="gaussian", scaling="none"),
    optimizer="sgd",
    lr=1e-4,
    batch=200,
    epochs=100,
    tolerance=1e-4,
)

PRESETS = {
    f"iacolippo_{method.value}": replace(notebook, method=method) for method in (Method.BP, Method.DFA, Method.SHALLOW)
}
