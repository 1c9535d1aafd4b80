"""A stage that dies takes the others with it, at once; one that hangs, within the timeout. Each says one sentence."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.pipelining import PipelineStage

from tests.tinydfa.pipelining.nets import data, mean, net, points_of, stage_of
from tinydfa.pipelining import ScheduleDFA, StageLostError

ROOT = Path(__file__).resolve().parents[3]


def stage(rank, stages, folder, fault, where):
    """Train until stage `where` ends by `fault` in its fourth step; what the others then raise is their last line."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=stages)
    module = stage_of(net(), stages, rank)
    pipe = PipelineStage(module, rank, stages, torch.device("cpu"))
    schedule = ScheduleDFA(pipe, 4, mean, points=points_of(module), overlap=True, timeout=timedelta(seconds=8))
    (x, y) = data()[0]
    for number in range(1000):
        if rank == where and number == 3:
            Path(folder, "fault").write_text("")
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "raise":
                raise ValueError("a mistake of this stage alone")
            time.sleep(600)
        try:
            schedule.step(*([x] if rank == 0 else []), **({"target": y} if rank == stages - 1 else {}))
        except StageLostError as error:
            print(error, flush=True)
            os._exit(3)


@pytest.mark.parametrize(
    ("fault", "where", "limit"), [("kill", 1, 6), ("kill", 2, 6), ("raise", 0, 6), ("hang", 1, 20)]
)
def test_all_stages_end_when_one_does(tmp_path, fault, where, limit):
    program = "import sys; from tests.tinydfa.pipelining.test_faults import stage; stage(*eval(sys.argv[1]))"
    began = [
        subprocess.Popen(
            [sys.executable, "-c", program, repr((rank, 3, str(tmp_path), fault, where))],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "fault").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        at = time.monotonic()
        others = [process for number, process in enumerate(began) if number != where]
        said = [process.communicate(timeout=90) for process in others]
        assert [process.returncode for process in others] == [3, 3]
        assert time.monotonic() - at < 3 * limit  # three times: the machine may be busy
    finally:
        for process in began:
            process.kill()
            process.communicate()
    for out, err in said:
        assert len(out.strip().splitlines()) == 1, (out, err)
        assert "has lost" in out
        assert "start them again from the last checkpoint" in out
        assert "Traceback" not in err
