"""The networks of the DRTP paper (Frenkel, Lefebvre and Bol 2021): MNIST, CIFAR-10 and two generated tasks.

From the release: tanh hidden units, sigmoid outputs with binary cross-entropy averaged over batch and outputs, batches
of 100, pixels in [0, 1] for MNIST and standardised for CIFAR-10, 100 epochs, a feedback matrix of its own for every
layer, uniform. Two things are ours:

- **Optimiser.** The learning rates behind the published tables are not in the release (its default is Nesterov's with
  1e-4). We use Adam for all methods, because under Adam the size of the feedback, which differs between the methods by
  orders of magnitude, does not matter.
- **Length.** 200 epochs for CIFAR-10, as in the command that the release gives for that set.

Names: ``drtp_<data>_<network>_<method>``, such as ``drtp_mnist_fc1-500_dfa``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tinydfa import Feedback, Method
from vision.preset import Preset

METHODS = (Method.BP, Method.FA, Method.DFA, Method.DRTP, Method.SDFA, Method.SHALLOW)
FEEDBACK = Feedback(scaling="point", shared=False)

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {  # row of the table, and what sets the network apart
    "fc1-500": ("FC1-500", {"hidden": (500,)}),
    "fc1-1000": ("FC1-1000", {"hidden": (1000,)}),
    "fc2-500": ("FC2-500", {"hidden": (500, 500)}),
    "fc2-1000": ("FC2-1000", {"hidden": (1000, 1000)}),
    "conv-random": ("CONV random", {"model": "topology", "freeze_convs": True}),
    "conv": ("CONV trained", {"model": "topology"}),
}
TOPOLOGIES = {
    "mnist": "CONV_32_5_1_2_FC_1000_FC_10",
    "cifar": "CONV_64_3_1_1_CONV_256_3_1_1_FC_1000_FC_1000_FC_10",
}

mnist = Preset(method=Method.BP, feedback=FEEDBACK, lr=1.5e-4)
cifar = replace(mnist, normalise=True, epochs=200)

regression = Preset(
    method=Method.BP,
    hidden=(100, 100),
    output_act="tanh",
    loss="mse",
    init="he",
    feedback=FEEDBACK,
    lr=5e-4,
    batch=50,
    epochs=500,
)
classification = replace(regression, hidden=(500, 500), output_act="none", loss="bce")


def _networks() -> dict[str, Preset]:
    found = {}
    for data, base in (("mnist", mnist), ("cifar", cifar)):
        for network, (_, changes) in NETWORKS.items():
            topology = TOPOLOGIES[data] if "model" in changes else ""
            for method in METHODS:
                name = f"drtp_{data}_{network}_{method.value}"
                found[name] = replace(base, method=method, topology=topology, **changes)
    return found


def _generated() -> dict[str, Preset]:
    """Forward weights start from He's distribution under backpropagation and from zero under the others."""
    found = {}
    for task, base in (("regression", regression), ("classification", classification)):
        for method in METHODS:
            if task == "regression" and method is Method.DRTP:
                continue
            init = base.init if method in (Method.BP, Method.SHALLOW) else "zero"
            found[f"drtp_{task}_{method.value}"] = replace(base, method=method, init=init)
    return found


RATES = (1.5e-4, 5e-3, 1.5e-2)  # ours, to find out where the published rows of DFA may come from (table `drtp-rates`)


def _rates() -> dict[str, Preset]:
    return {
        f"drtp_rate-{rate:g}_{network}_{method.value}": replace(mnist, method=method, lr=rate, epochs=10, **changes)
        for network, (_, changes) in NETWORKS.items()
        if network in ("fc1-500", "fc2-500")
        for rate in RATES
        for method in (Method.BP, Method.DFA)
    }


PRESETS = _networks() | _generated() | _rates()
