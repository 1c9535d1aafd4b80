"""Trainers and wrappers of other packages, on a model that was attached before or after."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel

from tests.tinydfa.nets import Mlp, assert_gradients, batch, gradients_of, mlp_rule
from tinydfa import attach

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.cpu.amp.*:FutureWarning")


@pytest.fixture
def accelerator() -> Iterator[accelerate.Accelerator]:
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)  # that of a training run in this process
    yield accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def backpropagated(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    net = Mlp()
    cross_entropy(net(x), y).backward()
    return gradients_of(net)


CLOSE = {"rtol": 0.05, "atol": 2e-3}  # bfloat16 has eight bits


@pytest.mark.parametrize("order", ["attach first", "prepare first"])
def test_a_prepared_model_trains_by_the_rule_and_leaves_it(accelerator, order):
    net, (x, y) = Mlp(), batch()
    if order == "prepare first":
        net = accelerator.prepare(net)
    attachment = attach(net, "dfa")
    if order == "attach first":
        net = accelerator.prepare(net)
    output = net(x)
    assert output.dtype is torch.float32  # accelerate's wrapper is at work
    cross_entropy(output, y).backward()
    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: e), **CLOSE)
    attachment.detach()
    net.zero_grad()
    output = net(x)
    assert output.dtype is torch.float32
    cross_entropy(output, y).backward()
    assert_gradients(net, backpropagated(x, y), **CLOSE)


def test_the_wrapper_of_mixed_precision_can_be_taken_off(accelerator):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")
    net = accelerator.unwrap_model(accelerator.prepare(net), keep_fp32_wrapper=False)
    cross_entropy(net(x), y).backward()
    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: e))
    attachment.detach()
    assert type(net) is Mlp
    assert "forward" not in vars(net)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda net: AveragedModel(net).module], ids=["copy", "average"])
def test_a_copy_of_a_prepared_model_has_weights_of_its_own(accelerator, make):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")
    net = accelerator.prepare(net)
    kept = make(net)
    expected = kept(x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    assert torch.equal(kept(x), expected)
    cross_entropy(kept(x), y).backward()
    assert gradients_of(net) == {}
    net(x)  # draws the same matrix
    assert_gradients(kept, mlp_rule(kept, x, y, attachment.head.feedback_matrix, lambda e: e), **CLOSE)


@pytest.mark.parametrize("last", ["hook", "attachment"])
def test_a_hook_and_the_attachment_come_off_in_any_order(last):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")
    accelerate.hooks.add_hook_to_module(net, accelerate.hooks.ModelHook())
    assert list(inspect.signature(net.forward).parameters) == ["x"]
    cross_entropy(net(x), y).backward()
    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: e))
    if last == "hook":
        attachment.detach()
        net.zero_grad()
        cross_entropy(net(x), y).backward()
        assert_gradients(net, backpropagated(x, y))
    accelerate.hooks.remove_hook_from_module(net)
    attachment.detach()
    net.zero_grad()
    cross_entropy(net(x), y).backward()
    assert_gradients(net, backpropagated(x, y))
    assert type(net) is Mlp


class Repeated(nn.Module):
    """Blocks of one class, which accelerate compiles one by one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3))
        self.top = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.top(x)


@pytest.mark.parametrize("order", ["attach first", "compile first"])
def test_regions_compiled_one_by_one_train_by_the_rule(order):
    model, (x, y) = Repeated(), batch()
    attachment = attach(model, "dfa", points=["blocks.*"])
    cross_entropy(model(x), y).backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    if order == "compile first":
        attachment.detach()
    regions = accelerate.utils.compile_regions(model, backend="aot_eager")
    if order == "compile first":
        attach(regions, "dfa", points=["blocks.*"])
    cross_entropy(regions(x), y).backward()
    for parameter, gradient in zip(regions.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.fixture
def transformers():
    module = pytest.importorskip("transformers", reason="transformers is not installed")
    level = module.logging.get_verbosity()
    module.logging.set_verbosity_error()
    yield module
    module.logging.set_verbosity(level)


def language_model(transformers) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=37, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
    return model


@pytest.mark.filterwarnings("ignore::UserWarning:transformers")
def test_generate_gives_the_same_tokens_for_a_padded_batch(transformers):
    ids = torch.tensor([[0, 0, 0, 5, 6, 7], [1, 2, 3, 4, 5, 6]])
    found = []
    for attached in (False, True):
        model = language_model(transformers)
        if attached:
            attach(model, "dfa", points=["transformer.h.*"], output="lm_head")
        options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        found.append(model.generate(ids, attention_mask=(ids != 0).long(), **options))
    assert torch.equal(*found)


@pytest.mark.filterwarnings("ignore::UserWarning:transformers", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_trainer_keeps_the_columns_that_the_model_takes(transformers, tmp_path):
    rows = torch.randint(0, 37, (16, 8), generator=torch.Generator().manual_seed(1))
    data = [{"input_ids": row, "labels": row, "note": "dropped"} for row in rows]
    model = language_model(transformers)
    attach(model, "dfa", points=["transformer.h.*"], output="lm_head")
    before = model.transformer.h[0].mlp.c_fc.weight.detach().clone()
    options = transformers.TrainingArguments(
        str(tmp_path), use_cpu=True, max_steps=2, per_device_train_batch_size=4, report_to=[], save_strategy="no",
        logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(model=model, args=options, train_dataset=data)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    assert not torch.equal(before, model.transformer.h[0].mlp.c_fc.weight)
