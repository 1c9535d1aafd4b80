"""What feedback is drawn from, for oracles that need the same numbers as the library."""

import torch


def feedback_generator(seed: int) -> torch.Generator:
    """A generator at the start of a feedback of `seed`, whose numbers no other generator of that seed gives."""
    return torch.Generator().manual_seed(seed ^ 0x7D0FA_5EED_F00D)
