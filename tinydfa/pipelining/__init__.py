"""Pipelines of `torch.distributed.pipelining` whose stages do not wait for a backward pass.

    stage = PipelineStage(module, rank, world, device)          # torch's
    schedule = ScheduleDFA(stage, 4, loss_fn, points=["layers.*"], overlap=True)
    for x, y in batches:
        schedule.step(x) if stage.is_first else schedule.step(target=y) if stage.is_last else schedule.step()
        optimizer.step()
        optimizer.zero_grad()

Letters: P stages, M microbatches of a batch; F forward pass, W gradients of the weights, I gradient of the input.
"""

from tinydfa.pipelining.checkpoint import load, save
from tinydfa.pipelining.exchange import StageLostError
from tinydfa.pipelining.learning import joined, renamed
from tinydfa.pipelining.order import Action, alive, order
from tinydfa.pipelining.schedule import ScheduleDFA

__all__ = ["Action", "ScheduleDFA", "StageLostError", "alive", "joined", "load", "order", "renamed", "save"]
