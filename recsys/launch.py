"""What `accelerate launch` was asked for, beside what the command itself was: the two must agree."""

from __future__ import annotations

import os

from harness.errors import UserError

ELSEWHERE = {  # what accelerate tells its script, and the option that asks it to
    "ACCELERATE_USE_DEEPSPEED": "--use_deepspeed",
    "ACCELERATE_USE_FSDP": "--use_fsdp",
    "ACCELERATE_USE_MEGATRON_LM": "--use_megatron_lm",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "--use_parallelism_config",
}


def check_launch(precision: str, compiled: bool) -> None:
    """Raise `UserError` if accelerate's launcher, or its configuration file, asks for what this run will not do.

    Args:
        precision: The run's: fp32 or bf16.
        compiled: Whether the run compiles its model.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    ours = "no" if precision == "fp32" else precision
    if asked not in ("no", ours):
        way_out = "add --precision bf16" if asked == "bf16" else "use no or bf16"
        raise UserError(
            f"accelerate launch was asked for mixed_precision {asked}, and this run for --precision {precision}. Let "
            f"both say the same: {way_out}, or launch with --mixed_precision {ours}."
        )
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend not in ("", "no") and not compiled:
        raise UserError(
            f"accelerate launch was asked for dynamo_backend {backend}, and this run does not compile. Add --compile, "
            "or launch with --dynamo_backend no."
        )
    for name, option in ELSEWHERE.items():
        if os.environ.get(name, "false").lower() in ("1", "true"):
            raise UserError(f"accelerate launch was asked for {option}, which this task does not do. Leave it out.")


def check_share(batch: int, processes: int) -> None:
    """Raise `UserError` if a batch has not a row for every process."""
    if batch < processes:
        raise UserError(f"--batch {batch}: {processes} processes share its rows. Give at least {processes}.")
