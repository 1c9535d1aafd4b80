"""Small runs and logs, and a training whose scores are written beforehand."""

from dataclasses import replace

from recsys import train as module
from recsys.evaluate import evaluate
from tests.recsys.runs import options

SMALL = {"rows": 3000, "epochs": 2, "batch": 256, "lr": 3e-3, "device": "cpu"}


def small(**given):
    return options(**(SMALL | given))


def scripted(monkeypatch, aucs):
    """Let the validation AUC be what the script says; notes what was evaluated."""
    seen = []
    script = iter(aucs)

    def scores(model, clicks, device):
        seen.append((clicks, {name: value.clone() for name, value in model.state_dict().items()}))
        found = evaluate(model, clicks, device)
        return replace(found, auc=next(script, found.auc))

    monkeypatch.setattr(module, "evaluate", scores)
    return seen


def criteo(path, folder, **given):
    place = {"dataset": "criteo", "criteo_file": path, "out": folder}
    return small(rows=None, min_count=3, **place, **given)
