"""Under accelerate, on any number of processes: accelerate launch examples/accelerate_loop.py"""

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import tinydfa

torch.manual_seed(0)
accelerator = Accelerator()
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
x = torch.randn(4800, 20)
data = DataLoader(TensorDataset(x, nn.Linear(20, 4)(x).argmax(dim=1)), batch_size=64)
tinydfa.attach(model, "dfa", points=["1", "3"])  # before or after prepare; save_state keeps its state as well

model, optimizer, data = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=1e-3), data)
for epoch in range(1, 7):
    for inputs, classes in data:
        loss = cross_entropy(model(inputs), classes)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
    accelerator.print(f"epoch {epoch}: loss {loss.item():.3f}")
