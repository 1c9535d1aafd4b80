"""Train a model of one's own without backpropagation: python examples/own_model.py"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import tinydfa

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
teacher = nn.Linear(20, 4)
tinydfa.attach(model, "dfa", points=["1", "3"])  # "fitted", "sdfa", "drtp", "bp" ...: the loop stays as it is

optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(1, 301):
    x = torch.randn(64, 20)
    loss = cross_entropy(model(x), teacher(x).argmax(dim=1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(f"step {step}: loss {loss.item():.3f}")
