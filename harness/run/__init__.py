"""What a training needs from its start to its end: a folder that it continues from, checkpoints, progress, memory."""

from harness.errors import NonFiniteLoss
from harness.run.null import NullRun
from harness.run.numbers import check_loss
from harness.run.run import Run, read_config

__all__ = ["NonFiniteLoss", "NullRun", "Run", "check_loss", "read_config"]
