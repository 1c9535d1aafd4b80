"""Random generators: one seed for all of them, and their states as plain data for a checkpoint."""

import random
from typing import Any

import numpy as np
import torch

from harness.errors import UserError

LARGEST = 2**32 - 1  # NumPy takes no larger seed


def check_seed(seed: int) -> None:
    """Raise `UserError` for a `--seed` that not every generator takes as it is."""
    if not 0 <= seed <= LARGEST:
        raise UserError(f"--seed {seed}: give a number from 0 to {LARGEST}.")


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (CPU and every accelerator)."""
    random.seed(seed)
    np.random.seed(seed % (LARGEST + 1))  # the seed of a rank may be larger than the run's
    torch.manual_seed(seed)


def generator_states() -> dict[str, Any]:
    """The states of the global generators, as tensors and plain values that `torch.load(weights_only=True)` accepts."""
    legacy = np.random.get_state(legacy=False)
    assert isinstance(legacy, dict)
    return {
        "python": random.getstate(),
        "numpy": {
            "key": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
            "pos": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else [],
    }


def set_generator_states(states: dict[str, Any]) -> None:
    """Put the global generators back to what `generator_states` returned.

    States of GPUs that this machine lacks are left out.
    """
    random.setstate(states["python"])
    numpy = states["numpy"]
    key = numpy["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, numpy["pos"], numpy["has_gauss"], numpy["gauss"]))
    torch.set_rng_state(states["torch"])
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index, state in enumerate(states["cuda"][:here]):
        torch.cuda.set_rng_state(state, index)
    if states["mps"] and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"][0])
