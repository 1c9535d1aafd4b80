"""Under transformers' Trainer: python examples/trainer.py

A small GPT-2 on sequences that count. The error is taken below the last norm (docs/what-to-try.md), at the last block.
Checkpoints hold the attachment's state; resume with trainer.train(resume_from_checkpoint=True).
"""

import tempfile

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import tinydfa
from tinydfa.rules import Fitted


class Counting(Dataset):
    """Sequences of 16 numbers, each one more than the one before."""

    def __len__(self) -> int:
        return 1600

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        words = (torch.arange(16) + number) % 50
        return {"input_ids": words, "labels": words}


torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=64, n_layer=2, n_head=2))
points = ["transformer.h.*"]  # after every block
tinydfa.attach(model, Fitted(exact_every=25), points, output="transformer.h.1")  # feedback that learns; "dfa" is fixed
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder, max_steps=150, learning_rate=3e-3, logging_steps=25, report_to=[], use_cpu=True
    )
    Trainer(model, arguments, train_dataset=Counting()).train()
