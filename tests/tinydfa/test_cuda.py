"""On a GPU every method does what it does on a CPU, under the conditions of the works-with matrix as well."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import ConvNet, batch, gradients_of
from tests.tinydfa.works_with import METHODS, attached, step
from tinydfa import Feedback, attach, doctor, measure_alignment
from tinydfa.errors import ErrorSignalError, ShapeError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.fixture(autouse=True)
def exact_products():
    """Products of float32 numbers, without TF32's rounding."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def gradients(method, device, forward=None, bf16=False, steps=2):
    """Gradients of a step on `device`, of the second one where matrices are redrawn; all on the CPU."""
    model, attachment = attached(method)
    model.to(device)
    x, y = (tensor.to(device) for tensor in batch())
    run = model if forward is None else forward(model)
    for _ in range(steps):
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            step(model, attachment, x, y, run)
    return {name: g.cpu() for name, g in gradients_of(model).items()}


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_the_cpu(method):
    torch.testing.assert_close(gradients(method, "cuda"), gradients(method, "cpu"), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_compiled_gradients_are_those_of_the_cpu(method):
    def compiled(model):
        return torch.compile(model, fullgraph=True)

    torch._dynamo.reset()
    torch.testing.assert_close(gradients(method, "cuda", compiled), gradients(method, "cpu"), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("sdfa", "tdfa")])
def test_gradients_under_autocast_are_those_of_the_cpu_but_for_rounding(method):
    expected = gradients(method, "cpu")
    for name, g in gradients(method, "cuda", bf16=True).items():
        assert torch.cosine_similarity(g.flatten(), expected[name].flatten(), dim=0) > 0.99, name


def test_a_model_that_moves_after_a_step_takes_its_feedback_along():
    x, y = batch(8, 2, 8, 8)
    model = ConvNet()
    attachment = attach(model, "dfa", feedback=Feedback(seed=1))
    step(model, attachment, x, y)
    expected = gradients_of(model)
    model.zero_grad()
    step(model.cuda(), attachment, x.cuda(), y.cuda())
    moved = {name: g.cpu() for name, g in gradients_of(model).items()}
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_state_saved_on_a_gpu_goes_on_on_a_cpu(method, tmp_path):
    model, attachment = attached(method)
    x, y = batch()
    model.cuda()
    step(model, attachment, x.cuda(), y.cuda())
    torch.save({"model": model.state_dict(), "attachment": attachment.state_dict()}, tmp_path / "state.pt")
    model.zero_grad()
    step(model, attachment, x.cuda(), y.cuda())
    saved = torch.load(tmp_path / "state.pt", map_location="cpu", weights_only=True)
    other, other_attachment = attached(method, seed=99)
    other.load_state_dict(saved["model"])
    other_attachment.load_state_dict(saved["attachment"])
    step(other, other_attachment, x, y)
    expected = {name: g.cpu() for name, g in gradients_of(model).items()}
    torch.testing.assert_close(gradients_of(other), expected, rtol=1e-4, atol=1e-6)


def test_alignment_is_that_of_the_cpu():
    found = {}
    for device in ("cpu", "cuda"):
        model, _ = attached("dfa")
        model.to(device)
        x, y = (tensor.to(device) for tensor in batch(64))
        measured = measure_alignment(model, lambda model, x=x, y=y: cross_entropy(model(x), y))
        found[device] = {name: alignment.mean for name, alignment in measured.items()}
    assert found["cuda"] == pytest.approx(found["cpu"], abs=1e-4)


def test_a_diagnosis_is_that_of_the_cpu():
    found = {}
    for device in ("cpu", "cuda"):
        model, _ = attached("dfa")
        model.to(device)
        data = tuple(tensor.to(device) for tensor in batch(64))
        diagnosis = doctor(model, data, lambda model, data: cross_entropy(model(data[0]), data[1]))
        found[device] = diagnosis.parameters, diagnosis.points, diagnosis.findings
    assert found["cuda"] == found["cpu"]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_broken_error_stops_the_backward_pass(compiled):
    model, _ = attached("dfa")
    net = torch.compile(model.cuda(), fullgraph=True) if compiled else model.cuda()
    x, y = (tensor.cuda() for tensor in batch())
    with pytest.raises(ErrorSignalError, match="is not finite"):
        (cross_entropy(net(x), y) * math.inf).backward()


def test_a_class_id_that_is_too_large_stops_the_backward_pass():
    model, attachment = attached("drtp")
    x, y = (tensor.cuda() for tensor in batch())
    attachment.target = y + 3
    with pytest.raises(ShapeError, match="class id 5"):
        cross_entropy(model.cuda()(x), y).backward()


@pytest.mark.parametrize("method", ["dfa", "drtp", "sdfa"])
def test_a_step_never_waits_for_all_that_the_gpu_was_given(method):
    model, attachment = attached(method)
    x, y = (tensor.cuda() for tensor in batch())
    step(model.cuda(), attachment, x, y)  # the matrix is drawn
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(model, attachment, x, y)
    finally:
        torch.cuda.set_sync_debug_mode("default")
