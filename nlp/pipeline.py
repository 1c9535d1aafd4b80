"""A language model trained in stages, one a process, by `tinydfa.pipelining` or, for backpropagation, by 1F1B.

    torchrun --nproc-per-node 2 -m nlp.train --pipeline 2 --dataset docs --method dfa

Every process builds the whole model from the same seed and trains some of its blocks. Weights are gathered where the
whole model is needed: to validate, which the processes do together, and to write a checkpoint. The checkpoint is the
same as that of one process, so that any number of stages, or one process, can resume from it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from harness.methods import rule_of
from harness.precision import at_least_float32
from harness.processes import ALONE, draw_apart
from nlp.config import Config
from nlp.model.transformer import LanguageModel, cross_entropy
from nlp.text.streams import Chunk
from nlp.trainer import Trainer
from tinydfa import DFALayer, Method
from tinydfa.pipelining import ScheduleDFA, joined, renamed
from tinydfa.rules import Backprop


class Stage(LanguageModel):
    """Some blocks of a language model, the embedding below the first and the decoder above the last.

    Args:
        whole: The model, whose modules it shares.
        start: Its first block.
        stop: The block after its last.
    """

    def __init__(self, whole: LanguageModel, start: int, stop: int) -> None:
        nn.Module.__init__(self)
        self.length, self.dropout = whole.length, whole.dropout
        self.error_at, self.projects_last = whole.error_at, whole.projects_last
        self.is_first, self.is_last = start == 0, stop == len(whole.blocks)
        if self.is_first:
            self.embedding, self.point = whole.embedding, whole.point
            self.register_buffer("positions", whole.positions, persistent=False)
        self.parts = nn.ModuleDict({str(number): whole.blocks[number] for number in range(start, stop)})
        if self.is_last:
            self.decoder, self.head = whole.decoder, whole.head

    def forward(self, x: Tensor) -> Tensor:
        """Tokens, or what the stage below returns, to what the stage above reads, or logits."""
        x = self.embedded(x) if self.is_first else x
        x = self.through(self.parts.values(), x)
        return self.logits(x) if self.is_last else x


class PipelinedTraining(Trainer):
    """A trainer of which this process has one stage; arguments as for `Trainer`."""

    def _attach(self, config: Config) -> None:
        rank, stages = self.group.rank, self.group.size
        self.readers = ALONE  # every stage reads the whole batch
        borders = [round(self.preset.layers * number / stages) for number in range(stages + 1)]
        self.net = Stage(self.model, borders[rank], borders[rank + 1])
        self.stage = PipelineStage(self.net, rank, stages, self.device)
        self.own = {id(weight) for weight in self.net.parameters()}
        for module in self.model.modules():  # the points belong to the stage, not to the whole model's head
            if isinstance(module, DFALayer):
                module.link = None
        self.model.head.link.change(rule=Backprop())
        self.feedback = replace(self.preset.feedback, seed=config.seed)
        self.pipeline = self._schedule(config)
        self.overlap = config.overlap
        self._nothing = torch.zeros((), device=self.device)  # the loss on all stages but the last
        draw_apart()

    def _schedule(self, config: Config) -> Any:
        if self.preset.method == Method.BP:
            return Schedule1F1B(self.stage, config.microbatches, summed_loss, scale_grads=False)
        options: dict[str, Any] = {"overlap": config.overlap, "memory": config.memory}
        options |= {"rule": self.preset.method, "feedback": self.feedback}
        return ScheduleDFA(self.stage, config.microbatches, summed_loss, scale_grads=False, **options)

    def step(self, chunk: Chunk) -> Tensor | None:
        """One step of the optimiser on this stage's weights; the loss before it, summed, on the last stage."""
        self.net.train()
        self.optimizer.zero_grad()
        losses: list[Tensor] = []
        give: dict[str, Any] = {}
        if self.stage.is_last or rule_of(self.preset.method).needs_target:
            give = {"target": chunk.y, "losses": losses}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            inputs = [chunk.x] if self.stage.is_first else []
            self.pipeline.step(*inputs, **give, loss_kwargs={"tokens": chunk.tokens}, return_outputs=False)
        if not self.overlap:
            clip_together(list(self.net.parameters()), self.preset.clip_norm)
        self.optimizer.step()
        loss = torch.stack(losses).sum().detach() * chunk.tokens if losses else None
        self._note(chunk, self._nothing if loss is None else loss)
        return loss

    def pause(self) -> None:
        """As `Trainer.pause`; then broadcast the weights, so that every process has those of all stages."""
        super().pause()
        owners = self.group.gather([id(weight) in self.own for weight in self.model.parameters()])
        for number, weight in enumerate(self.model.parameters()):
            owner = next(rank for rank, owns in enumerate(owners) if owns[number])
            dist.broadcast(weight.data, src=owner)

    def _method_state(self) -> dict[str, Any]:
        """The same as the state of an attachment in one process."""
        found: dict[str, Any] = {"forwards": 0, "learner": None}
        if isinstance(self.pipeline, ScheduleDFA):
            found = {name: self.pipeline.state_dict()[name] for name in found}
            parts = self.group.gather(found["learner"] and renamed(found["learner"], self._point_names()))
            found["learner"] = joined(parts) if parts[0] is not None else None
        found |= {"method": rule_of(self.preset.method).name, "seed": self.feedback.seed}
        found |= {"feedback": self.feedback.options, "feedback_matrix": None, "projector": None, "layerwise": {}}
        return found

    def _load_method_state(self, state: dict[str, Any]) -> None:
        if not isinstance(self.pipeline, ScheduleDFA):
            return
        here = {whole: mine for mine, whole in self._point_names().items()}
        learned = state["learner"] and renamed(state["learner"], here)
        self.pipeline.take_over(learned, state["forwards"])

    def _point_names(self) -> dict[str, str]:
        """The names of this stage's points in the whole model."""
        whole = {id(module): name for name, module in self.model.named_modules()}
        return {name: whole[id(m)] for name, m in self.net.named_modules() if isinstance(m, DFALayer)}

    def state_dict(self) -> dict[str, Any]:
        """The state that one process would write; the optimiser's is gathered from all stages."""
        state = super().state_dict() | {"stages": self.group.size}
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        mine = {n: v for n, v in state["optimizer"]["state"].items() if id(weights[n]) in self.own}
        for part in self.group.gather(mine):
            state["optimizer"]["state"] |= part
        return state


def summed_loss(logits: Tensor, targets: Tensor, tokens: int) -> Tensor:
    """A microbatch's part of the mean over all `tokens` of the batch, in nats."""
    return cross_entropy(at_least_float32(logits), targets) / tokens


def clip_together(weights: list[nn.Parameter], clip_norm: float) -> None:
    """Scale the gradients of all stages by the norm of all together, if it is above `clip_norm`."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    square = nn.utils.get_total_norm(gradients) ** 2
    dist.all_reduce(square)
    nn.utils.clip_grads_with_norm_(weights, clip_norm, square.sqrt())
