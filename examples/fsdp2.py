"""Weights sharded over processes by FSDP2: torchrun --nproc-per-node 2 examples/fsdp2.py"""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

import tinydfa

device = "cuda" if torch.cuda.is_available() else "cpu"
dist.init_process_group("nccl" if device == "cuda" else "gloo")
mesh = init_device_mesh(device, (dist.get_world_size(),))
torch.manual_seed(0)  # the same model on all processes
blocks = [nn.Sequential(nn.Linear(width, 64), nn.ReLU()) for width in (20, 64, 64)]
model = nn.Sequential(*blocks, nn.Linear(64, 4)).to(device)
teacher = nn.Linear(20, 4).to(device)
tinydfa.attach(model, "dfa", points=["0", "1", "2"])  # before or after fully_shard
for block in blocks:
    fully_shard(block, mesh=mesh)
fully_shard(model, mesh=mesh)

optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
torch.manual_seed(1 + dist.get_rank())  # other samples on each process
for step in range(1, 301):
    x = torch.randn(64, 20, device=device)
    loss = cross_entropy(model(x), teacher(x).argmax(dim=1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0 and dist.get_rank() == 0:
        print(f"step {step}: loss {loss.item():.3f}", flush=True)
dist.barrier()
dist.destroy_process_group()
