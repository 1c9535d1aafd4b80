"""Every example runs as it is printed, and learns."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TORCHRUN = (*TWO_PROCESSES, "tests/examples/without_shutdown.py")
EXAMPLES = {  # file: the package it needs, and how it is started
    "own_model.py": (None, ()),
    "own_rule.py": (None, ()),
    "own_device.py": (None, ()),
    "accelerate_loop.py": ("accelerate", ()),
    "fsdp2.py": (None, TORCHRUN),
    "trainer.py": ("transformers", ()),
    "lightning_module.py": ("lightning", ()),
    "pipeline.py": (None, TORCHRUN),
}


def test_every_example_is_tried():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == EXAMPLES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_its_loss_falls(name):
    package, launcher = EXAMPLES[name]
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, f"examples/{name}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    losses = [float(number) for number in re.findall(r"(?<!train_)loss'?:? '?([0-9.]+)", done.stdout)]
    assert len(losses) >= 6
    assert losses[-1] < 0.8 * losses[0]
