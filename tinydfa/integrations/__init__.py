"""What other trainers save and resume with an attached model: rule, seed, feedback, and what a rule has learned.

An attachment's state is no part of the model's `state_dict`, whose keys stay as they were. So it goes into the
checkpoints of the trainer itself, at the place that each keeps for such things, and without a line of the user's:

    transformers' Trainer    a callback writes ``tinydfa.pt`` into each checkpoint-N, and reads it when training resumes
    accelerate               hooks of `save_state` and `load_state` write and read the same file
    Lightning                a callback puts it under the key "tinydfa" of each checkpoint

A resumed run that was attached with another seed is refused. None of these packages is imported: when one is, by
whoever uses it, its trainer is told.
"""

from tinydfa.integrations import accelerate, lightning, transformers
from tinydfa.integrations.arrival import on_import


def watch() -> None:
    """Wait for the trainers that are known."""
    on_import("transformers.trainer", transformers.arrived)
    on_import("accelerate.accelerator", accelerate.arrived)
    for package in ("lightning.pytorch", "pytorch_lightning"):
        on_import(f"{package}.trainer.trainer", lightning.arrived)
