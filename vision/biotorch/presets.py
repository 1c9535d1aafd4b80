"""The small networks of BioTorch's benchmark (github.com/jsalbert/biotorch, `Benchmarks.md`, September 2021).

CIFAR-10: 45,000 images to train on and 5,000 that choose the epoch, 250 epochs, batches of 128, weight decay 1e-4,
learning rate divided by 10 after 100, 150 and 200 epochs, Xavier's initialisation. MNIST and Fashion-MNIST: LeNet-5 on
images padded to 32 x 32, SGD with momentum 0.9, weight decay 1e-3, batches of 64, 100 epochs, divided by 10 after 50
and 75.

Names: ``biotorch_<model>_<method>`` with the optimiser SGD, ``biotorch_<model>-adam_<method>`` with Adam.
"""

from __future__ import annotations

from dataclasses import replace

from tinydfa import Method
from vision.preset import Preset

METHODS = (Method.BP, Method.FA, Method.DFA, Method.USF, Method.BRSF, Method.FRSF)

cifar = Preset(
    method=Method.BP,
    act="relu",
    init="xavier",
    loss="ce",
    optimizer="momentum",
    lr=0.1,
    weight_decay=1e-4,
    milestones=(100, 150, 200),
    batch=128,
    epochs=250,
    normalise=True,
    pad_to=32,
    hold_out=5000,
)
mnist = replace(cifar, weight_decay=1e-3, milestones=(50, 75), batch=64, epochs=100, hold_out=0, lr=0.01)

RATES = {  # by model and optimiser: of BP and the sign-concordant methods, of FA, of DFA
    ("lenet", "momentum"): (0.1, 1e-3, 1e-4),
    ("lenet", "adam"): (1e-3, 1e-4, 1e-4),
    ("resnet20", "momentum"): (0.1, 0.1, 1e-3),
    ("resnet20", "adam"): (1e-3, 1e-3, 1e-3),
    ("resnet56", "momentum"): (0.1, 0.1, 1e-3),
    ("resnet56", "adam"): (1e-3, 1e-3, 1e-3),
}


def _presets() -> dict[str, Preset]:
    found = {}
    for (model, optimizer), (rate, rate_fa, rate_dfa) in RATES.items():
        suffix = "-adam" if optimizer == "adam" else ""
        for method in METHODS:
            lr = {Method.FA: rate_fa, Method.DFA: rate_dfa}.get(method, rate)
            name = f"biotorch_{model}{suffix}_{method.value}"
            found[name] = replace(cifar, model=model, method=method, optimizer=optimizer, lr=lr)
    for method in METHODS:
        found[f"biotorch_lenet-mnist_{method.value}"] = replace(mnist, model="lenet-mnist", method=method)
    return found


PRESETS = _presets()
