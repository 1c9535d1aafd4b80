"""Options of `accelerate launch`: they must agree with those of the command."""

from __future__ import annotations

import os

from harness.errors import UserError

ELSEWHERE = {  # what accelerate tells its script, and the option that asks it to
    "ACCELERATE_USE_DEEPSPEED": "--use_deepspeed",
    "ACCELERATE_USE_FSDP": "--use_fsdp",
    "ACCELERATE_USE_MEGATRON_LM": "--use_megatron_lm",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "--use_parallelism_config",
}


def check_launch(task: str, precision: str | None, compiled: bool | None = None) -> None:
    """Raise `UserError` if accelerate's launcher or its configuration file requests what this run does not do.

    Args:
        task: The task's folder.
        precision: What its --precision says; None: it has no such option, and trains in float32.
        compiled: Whether the run compiles its model; None: not known here.
    """
    _check_precision(task, precision)
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if compiled is False and backend not in ("", "no"):
        raise UserError(
            f"accelerate launch was asked for dynamo_backend {backend}, and this run does not compile. Add --compile, "
            "or launch with --dynamo_backend no."
        )
    for name, option in ELSEWHERE.items():
        if os.environ.get(name, "false").lower() in ("1", "true"):
            raise UserError(f"accelerate launch was asked for {option}, which {task} does not do. Leave it out.")


def _check_precision(task: str, precision: str | None) -> None:
    asked, ours = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower(), precision or "fp32"
    if asked in ("no", ours):
        return
    launch = "launch with --mixed_precision no"
    if precision is None:
        found, way_out = f"{task}, which has no option for that, trains in float32", launch[0].upper() + launch[1:]
    else:
        found = f"this run for --precision {precision}"
        way_out = f"Add --precision bf16, or {launch}" if asked == "bf16" else f"Use no or bf16: {launch}"
    raise UserError(f"accelerate launch was asked for mixed_precision {asked}, and {found}. {way_out}.")
