"""An attached model under transformers' Trainer, accelerate and Lightning: runs that are resumed."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tinydfa import DFAError, attach
from tinydfa.integrations.arrival import on_import

METHODS = ["dfa", "fa", "brsf", "dkp"]  # fixed feedback, fixed layers, a count of passes, feedback that learns
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def rows(count: int = 32) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(count, 4, generator=generator), torch.randint(0, 3, (count,), generator=generator)
    return list(zip(x, y, strict=True))


def parameters(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Accelerated:
    """A loop with accelerate: 8 steps, its state saved after 4 of them."""

    name = "accelerate"

    def __init__(self, folder: Path) -> None:
        self.package = pytest.importorskip("accelerate", reason="accelerate is not installed")
        self.folder, self.checkpoint = folder, folder / "state"

    def train(self, method: str, seed: int = 0, resume: bool = False) -> nn.Module:
        accelerator = self.package.Accelerator(cpu=True)
        net = classifier()
        if method != "none":
            attach(net, method, points=["1", "3"], seed=seed)
        net, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.5))
        if resume:
            accelerator.load_state(str(self.checkpoint))
        for step, (x, y) in enumerate(batches(4)):
            if resume and step < 4:
                continue
            optimizer.zero_grad()
            accelerator.backward(cross_entropy(net(x), y))
            optimizer.step()
            if step == 3:
                accelerator.save_state(str(self.checkpoint))
        return net


def batches(size: int) -> list[tuple[Tensor, Tensor]]:
    x, y = (torch.stack(each) for each in zip(*rows(), strict=True))
    return list(zip(x.split(size), y.split(size), strict=True))


class Transformers:
    """transformers' Trainer: 8 steps, a checkpoint after 4 of them."""

    name = "transformers"

    def __init__(self, folder: Path) -> None:
        self.package = pytest.importorskip("transformers", reason="transformers is not installed")
        self.package.logging.set_verbosity_error()
        self.folder, self.checkpoint = folder, folder / "checkpoint-4"

    def train(self, method: str, seed: int = 0, resume: bool = False) -> nn.Module:
        class Classifier(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = classifier()

            def forward(self, x, labels):
                logits = self.net(x)
                return {"loss": cross_entropy(logits, labels), "logits": logits}

        model = Classifier()
        if method != "none":
            attach(model.net, method, points=["1", "3"], seed=seed)
        arguments = self.package.TrainingArguments(
            str(self.folder), use_cpu=True, max_steps=8, save_steps=4, per_device_train_batch_size=4, report_to=[],
            disable_tqdm=True, logging_strategy="no", remove_unused_columns=False, learning_rate=0.1,
        )  # fmt: skip
        data = [{"x": x, "labels": y} for x, y in rows()]
        trainer = self.package.Trainer(model=model, args=arguments, train_dataset=data)
        trainer.remove_callback(self.package.PrinterCallback)
        trainer.train(resume_from_checkpoint=str(self.checkpoint) if resume else None)
        return model


class Lightning:
    """Lightning: 8 steps, a checkpoint after 4 of them; the attached model is a part of the module."""

    def __init__(self, folder: Path, name: str) -> None:
        self.package = pytest.importorskip(name, reason=f"{name} is not installed")
        self.folder, self.checkpoint, self.name = folder, folder / "half.ckpt", name

    def train(self, method: str, seed: int = 0, resume: bool = False) -> nn.Module:
        class Module(self.package.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = classifier()

            def training_step(self, batch):
                return cross_entropy(self.net(batch[0]), batch[1])

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.5)

        module = Module()
        if method != "none":
            attach(module.net, method, points=["1", "3"], seed=seed)

        def trainer(steps: int):
            return self.package.Trainer(
                max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, barebones=False,
                enable_progress_bar=False, enable_model_summary=False, default_root_dir=str(self.folder),
            )  # fmt: skip

        loader = torch.utils.data.DataLoader(rows(), batch_size=4)
        if not resume:
            first = trainer(4)
            first.fit(module, loader)
            first.save_checkpoint(self.checkpoint)
        last = trainer(8)
        last.fit(module, loader, ckpt_path=str(self.checkpoint))
        return module


TRAINERS = {
    "transformers": Transformers,
    "accelerate": Accelerated,
    "lightning": lambda folder: Lightning(folder, "lightning.pytorch"),
    "pytorch_lightning": lambda folder: Lightning(folder, "pytorch_lightning"),
}


@pytest.fixture(params=TRAINERS)
def trainer(request, tmp_path):
    return TRAINERS[request.param](tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_not_interrupted(trainer, method):
    whole = parameters(trainer.train(method))
    assert same(parameters(trainer.train(method, resume=True)), whole)


def test_the_weights_in_a_checkpoint_keep_their_names(trainer):
    names = [set(trainer.train(method).state_dict()) for method in ("none", "brsf")]
    assert names[0] == names[1]


def test_another_seed_at_resume_is_refused_with_both_seeds(trainer):
    trainer.train("dfa", seed=3)
    with pytest.raises(DFAError, match=r"seed=5, and checkpoint .* was trained with feedback of seed=3.*seed=3\)"):
        trainer.train("dfa", seed=5, resume=True)


def test_the_rule_of_the_checkpoint_goes_on_and_says_so(trainer):
    whole = parameters(trainer.train("dfa"))
    with pytest.warns(
        UserWarning, match=r"attached by bp, and goes on by dfa, as checkpoint .*attachment.method = 'bp'"
    ):
        resumed = trainer.train("bp", resume=True)
    assert same(parameters(resumed), whole)


def test_a_checkpoint_from_before_the_model_was_attached_is_told(trainer):
    trainer.train("none")
    with pytest.warns(
        UserWarning, match=r"holds no state of the attachment on .*dfa starts anew, with feedback of seed 4"
    ):
        trainer.train("dfa", seed=4, resume=True)


def test_models_that_nothing_is_attached_to_leave_no_file(trainer):
    trainer.train("none")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*attachment.*")
        trainer.train("none", resume=True)
    assert not list(trainer.folder.rglob("tinydfa.pt*"))


def test_a_module_that_is_imported_later_is_met_once_after_it_has_run(tmp_path, monkeypatch):
    (tmp_path / "some_trainer_package.py").write_text("LIST = ['own']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    on_import("some_trainer_package", lambda module: module.LIST.append("added"))
    module = importlib.import_module("some_trainer_package")
    assert module.LIST == ["own", "added"]
    assert importlib.reload(module).LIST == ["own"]
    on_import("some_trainer_package", lambda module: module.LIST.append("at once"))
    assert module.LIST == ["own", "at once"]
    assert module.__spec__.origin == str(tmp_path / "some_trainer_package.py")
    assert type(module.__loader__).__name__ == type(module.__spec__.loader).__name__ == "SourceFileLoader"
    del sys.modules["some_trainer_package"]


def test_a_module_that_does_not_exist_stays_missing():
    on_import("no_such_trainer_package", lambda module: None)
    with pytest.raises(ModuleNotFoundError, match="no_such_trainer_package"):
        importlib.import_module("no_such_trainer_package")
