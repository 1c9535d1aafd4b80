"""Train a model of one's own in stages, one a process, that do not wait for a backward pass.

torchrun --nproc-per-node 2 examples/pipeline.py
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage
from torch.nn.functional import cross_entropy

from tinydfa.pipelining import ScheduleDFA

dist.init_process_group("gloo")  # nccl on GPUs
rank, stages = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)  # all processes build the same model, and keep a part of it
model = nn.Sequential(
    *[part for width in (20, *[64] * 7) for part in (nn.Linear(width, 64), nn.ReLU())], nn.Linear(64, 4)
)
teacher = nn.Linear(20, 4)
each = 16 // stages  # two modules a block; the top belongs to the last stage
part = model[rank * each : (rank + 1) * each if rank < stages - 1 else None]
points = [name for name, module in part.named_children() if isinstance(module, nn.ReLU)]

stage = PipelineStage(part, rank, stages, torch.device("cpu"))
schedule = ScheduleDFA(stage, 4, cross_entropy, points=points, overlap=True)
optimizer = torch.optim.Adam(part.parameters(), lr=1e-3)
losses: list[torch.Tensor] = []
for step in range(300):
    x = torch.randn(64, 20)
    optimizer.zero_grad()
    if stage.is_first:
        schedule.step(x)
    elif stage.is_last:
        schedule.step(target=teacher(x).argmax(dim=1), losses=losses)
    else:
        schedule.step()
    optimizer.step()
    if stage.is_last and step % 50 == 49:
        print(f"step {step + 1}: loss {torch.stack(losses).mean():.3f}", flush=True)
dist.barrier()
dist.destroy_process_group()
