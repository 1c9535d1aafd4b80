"""What `python -m tinydfa` tries on this machine. Each trial trains a small model by DFA and compares its gradients.

A trial runs in a process of its own, since a broken compiler or a network that does not answer may end it or hang it:

    python -m tinydfa.trials compile
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tinydfa.attaching.attach import attach

LONGEST = 600  # characters of a reason


def attempt(name: str, limit: float) -> str:
    """Run one trial in a process of its own.

    Args:
        name: One of `TRIALS`.
        limit: Seconds after which it is ended, together with the processes that it started.

    Returns:
        A sentence: what was found, or why it failed.
    """
    root = str(Path(__file__).resolve().parent.parent)  # the trial must be of this copy of the library
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return outcome([sys.executable, "-m", "tinydfa.trials", name], limit, os.environ | {"PYTHONPATH": path})


def outcome(command: Sequence[str], limit: float, environment: Mapping[str, str] | None = None) -> str:
    """Run a command and put into a sentence how it ended; see `attempt`."""
    start = time.monotonic()
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"did not end within {limit:g} s; --limit gives it longer"
    if process.returncode == 0:
        return f"works: {out.strip()} ({time.monotonic() - start:.1f} s)"
    return f"does not work: {_reason(err) or f'exit status {process.returncode}'}"


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()


def _reason(complaint: str) -> str:
    """The line of a traceback that names the error; the last one that begins at the margin."""
    lines = [line.strip() for line in complaint.splitlines() if line[:1].strip()]
    named = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception"))]
    return (named or lines or [""])[-1][:LONGEST]


def model_and_batch(device: str) -> tuple[nn.Module, Tensor]:
    """A small perceptron that DFA trains, and inputs for it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4)).to(device)
    attach(model, "dfa", points=["1", "3"])
    return model, torch.randn(16, 8).to(device)


def gradients(model: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """The gradients of one backward pass through ``call(x)``."""
    model.zero_grad(set_to_none=True)
    call(x).float().square().mean().backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def same(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Raise `AssertionError` where two lists of gradients differ by more than a share of the largest entry."""
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance * max(float(e.abs().max()) for e in expected))


def compiled(device: str) -> str:
    """`torch.compile` of a whole attached model gives the gradients of the plain one."""
    model, x = model_and_batch(device)
    expected = gradients(model, model, x)
    same(gradients(model, torch.compile(model, fullgraph=True), x), expected, 1e-4)
    return f"torch.compile(fullgraph=True) on {device}"


def bfloat16(device: str) -> str:
    """Autocast to bfloat16 gives the gradients of float32, up to its rounding; says which of them multiplies faster."""
    model, x = model_and_batch(device)
    expected = gradients(model, model, x)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        found = gradients(model, model, x)
    same(found, expected, 0.1)
    ratio = product_seconds(device, torch.bfloat16) / product_seconds(device, torch.float32)
    return f"autocast on {device}, where a product takes {ratio:.2g} times as long as in float32"


def product_seconds(device: str, dtype: torch.dtype, size: int = 512, repeats: int = 5) -> float:
    """Seconds of the fastest of some products of two square matrices."""
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # reading a value synchronises with a GPU
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def distributed(device: str) -> str:
    """Two processes under `DistributedDataParallel` get the gradients of one; over gloo, or nccl on two GPUs."""
    backend = "nccl" if device == "cuda" and torch.cuda.device_count() > 1 else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (f"file://{folder}/meeting", backend), nprocs=2)
    return f"two processes of DistributedDataParallel over {backend}"


def _rank(rank: int, meeting: str, backend: str) -> None:
    """One of two processes: half the batch each."""
    torch.distributed.init_process_group(backend, init_method=meeting, rank=rank, world_size=2)
    _half(rank, f"cuda:{rank}" if backend == "nccl" else "cpu")
    gc.collect()  # a wrapped model is a cycle of references: one that outlives its group may wait for ever
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _half(rank: int, device: str) -> None:
    model, x = model_and_batch(device)
    expected = gradients(model, model, x)
    replica = nn.parallel.DistributedDataParallel(model)
    same(gradients(model, replica, x.chunk(2)[rank]), expected, 1e-4)


TRIALS: dict[str, Callable[[str], str]] = {"compile": compiled, "bf16": bfloat16, "distributed": distributed}


def main() -> None:
    """Run the trial that is named, on a GPU if there is one."""
    torch.set_num_threads(1)
    print(TRIALS[sys.argv[1]]("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    main()
