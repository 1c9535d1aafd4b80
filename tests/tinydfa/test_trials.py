"""`python -m tinydfa` says what works here: it tries, ends what hangs, and reports what fails."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tinydfa import attachment_of, trials
from tinydfa.rules import registered

ROOT = Path(__file__).resolve().parents[2]


def test_a_command_that_succeeds_works_and_says_how_long_it_took():
    said = trials.outcome([sys.executable, "-c", "print('all of it')"], limit=60)
    assert said.startswith("works: all of it (")
    assert said.endswith(" s)")


def test_a_command_that_raises_does_not_work_for_the_reason_that_it_names():
    code = "import sys\nprint('a warning', file=sys.stderr)\nraise OSError('no compiler')"
    assert trials.outcome([sys.executable, "-c", code], limit=60) == "does not work: OSError: no compiler"


def test_a_command_that_is_killed_does_not_work_and_shows_its_status():
    code = "import os\nos.kill(os.getpid(), 9)"
    assert trials.outcome([sys.executable, "-c", code], limit=60) == "does not work: exit status -9"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the state of a process from /proc")
def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    note = tmp_path / "child"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(note)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    said = trials.outcome([sys.executable, "-c", code], limit=5)
    assert said == "did not end within 5 s; --limit gives it longer"
    process = Path("/proc") / note.read_text()
    end = time.monotonic() + 10
    while process.exists() and "State:\tZ" not in (process / "status").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_trial_compares_gradients_and_says_where_they_differ():
    trials.same([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 2.01])], tolerance=0.01)
    with pytest.raises(AssertionError, match="not close"):
        trials.same([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 2.1])], tolerance=0.01)


def test_the_model_of_the_trials_is_trained_by_dfa():
    model, x = trials.model_and_batch("cpu")
    found = trials.gradients(model, model, x)
    attachment_of(model).detach()
    expected = trials.gradients(model, model, x)
    torch.testing.assert_close(found[-1], expected[-1])  # the top layer has backpropagation's gradient
    assert not torch.allclose(found[0], expected[0], rtol=0.1)  # the lowest one does not


def test_bfloat16_is_tried_by_training_in_it():
    assert trials.bfloat16("cpu").startswith("autocast on cpu, where a product takes ")


@pytest.mark.slow
def test_the_command_prints_versions_rules_devices_and_what_works():
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tinydfa", "--limit", "300"]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for part in (f"torch {torch.__version__}", "device cpu", *registered()):
        assert part in text
    for word, said in (
        ("compile", "works: torch.compile(fullgraph=True) on "),
        ("bf16", "works: autocast on "),
        ("distributed", "works: two processes of DistributedDataParallel over "),
    ):
        assert f"{word} {said}" in text
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_a_limit_of_nothing_is_refused_before_anything_is_tried():
    command = [sys.executable, "-m", "tinydfa", "--limit", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--limit 0: must be more than 0 seconds" in done.stderr
