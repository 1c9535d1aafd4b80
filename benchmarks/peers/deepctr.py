"""deepctr-torch's DeepFM beside this project's.

    python -m benchmarks.peers.install deepctr
    PYTHONPATH=.:.peers/deepctr python -m benchmarks.peers.deepctr

Both have the published sizes: embeddings of 10, three hidden layers of 400 with batch normalisation and dropout, dense
Adam, no regularisation. deepctr-torch's step is that of its `fit`, whose data loader, progress bar and metrics are left
out; its embeddings are one table a field.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import recsys_step
from benchmarks.contest import Contest
from benchmarks.methods import recsys_config
from benchmarks.peers import process
from benchmarks.scale import Scale
from benchmarks.timing import Step
from recsys.log.batches import Batch
from recsys.preset import Preset
from tinydfa import Method


def their_step(preset: Preset, field_dims: tuple[int, ...], batch: Batch) -> Step:
    """A step as in `deepctr_torch.models.basemodel.BaseModel.fit`."""
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import DeepFM

    columns = [SparseFeat(f"field{place}", size, preset.embed) for place, size in enumerate(field_dims)]
    no_penalty = {"l2_reg_linear": 0.0, "l2_reg_embedding": 0.0}
    model = DeepFM(columns, columns, preset.mlp, dnn_dropout=preset.dropout, dnn_use_bn=True, **no_penalty)
    model.compile("adam", "binary_crossentropy")
    model.train()
    fields = batch.fields.float()  # a category is handed over as a number like any other

    def step() -> None:
        predicted = model(fields).squeeze(-1)
        model.optim.zero_grad()
        loss = model.loss_func(predicted, batch.labels, reduction="sum") + model.get_regularization_loss()
        (loss + model.aux_loss).backward()
        model.optim.step()

    return step


def contests(quick: bool) -> Iterator[Contest]:
    """DeepFM on a batch of a log like Criteo's."""
    config = recsys_config(Scale(quick=quick))
    field_dims, batch = recsys_step.draw(config)
    presets = {method.value: recsys_step.find("deepfm", method, config.batch) for method in (Method.BP, Method.DFA)}
    steps = {name: recsys_step.our_step(preset, field_dims, batch) for name, preset in presets.items()}
    yield Contest(
        task="recsys",
        model=recsys_step.title("deepfm", config),
        steps={"deepctr-torch": their_step(presets["bp"], field_dims, batch)} | steps,
        peers={"bp": "deepctr-torch"},
        limits={"dfa": recsys_step.limit(presets["dfa"], presets["bp"], len(field_dims))},
    )


if __name__ == "__main__":
    from harness import cli

    cli.run(process.Config, lambda config: process.main(contests, config))
