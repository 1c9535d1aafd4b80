"""No module's output is passed over because of its type: it is fed, refused, or its other ways out are reported."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.draws import feedback_generator
from tests.tinydfa.nets import batch, error_of, fill
from tinydfa import DFAError, attach


@dataclass
class Loose:
    hidden: Tensor
    note: str = ""


@dataclass(frozen=True)
class Frozen:
    hidden: Tensor
    note: str = ""


@dataclass(slots=True)
class Nested:
    note: str
    parts: list[dict[str, Tensor]] = field(default_factory=list)


class Bag:
    """A plain object with a tensor."""

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden


WRAPPERS = {
    "dataclass": (Loose, lambda out: out.hidden),
    "frozen dataclass": (Frozen, lambda out: out.hidden),
    "dataclass of lists": (lambda h: Nested("", [{"h": h}]), lambda out: out.parts[0]["h"]),
    "tuple in a tuple": (lambda h: ("", (None, (h,))), lambda out: out[1][1][0]),
    "dictionary of lists": (lambda h: {"a": [h]}, lambda out: out["a"][0]),
}


class Layer(nn.Linear):
    wrap = staticmethod(lambda h: h)

    def forward(self, x: Tensor):
        return self.wrap(super().forward(x))


class Model(nn.Module):
    """A hidden layer that wraps what it returns, and an output that may be wrapped alike."""

    def __init__(self, wrap, unwrap, whole: bool = False) -> None:
        super().__init__()
        self.layer, self.top = Layer(6, 5), nn.Linear(5, 3)
        self.layer.wrap, self.unwrap, self.whole = wrap, unwrap, whole
        fill(self, torch.Generator().manual_seed(0))

    def forward(self, x: Tensor):
        output = self.top(self.unwrap(self.layer(x)))
        return self.layer.wrap(output) if self.whole else output


def check(model: Model, output: Tensor, x: Tensor, y: Tensor) -> None:
    """The layer's gradient is ``(e @ F / sqrt(5)).T @ x``."""
    cross_entropy(output, y).backward()
    drawn = torch.rand(3, 5, generator=feedback_generator(0)) * 2 - 1
    signal = error_of(output.detach(), y) @ drawn / 5**0.5
    torch.testing.assert_close(model.layer.weight.grad, signal.T @ x)


@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_point_is_found_in(kind):
    (wrap, unwrap), (x, y) = WRAPPERS[kind], batch()
    model = Model(wrap, unwrap)
    attach(model, "dfa", points=["layer"])
    check(model, model(x), x, y)


@pytest.mark.parametrize("kind", WRAPPERS)
def test_the_error_is_taken_in(kind):
    (wrap, unwrap), (x, y) = WRAPPERS[kind], batch()
    model = Model(wrap, unwrap, whole=True)
    attach(model, "dfa", points=["layer"])
    output = model(x)
    assert type(output) is type(wrap(x))
    check(model, unwrap(output), x, y)


def test_an_object_says_how_its_tensors_are_named():
    x, y = batch()
    for whole, points, output, text in (
        (False, ["layer"], None, "Name one of its attributes: 'layer\\[hidden\\]'"),
        (True, ["layer[hidden]"], None, "Name one of its attributes: '\\[hidden\\]'"),
        (True, ["layer[hidden]"], "[hidden]", ""),
    ):
        model = Model(Bag, lambda out: out.hidden, whole)
        attach(model, "dfa", points=points, output=output)
        if text:
            with pytest.raises(DFAError, match=text):
                model(x)
        else:
            check(model, model(x).hidden, x, y)


def test_another_way_out_of_a_dataclass_is_reported():
    x, y = batch()
    model = Model(lambda h: (h, Loose(2 * h)), lambda out: out[1].hidden)
    attach(model, "dfa", points=["layer"])
    with pytest.warns(UserWarning, match=r"goes around feedback point 'layer'.*'layer\[1\]\[hidden\]'"):
        cross_entropy(model(x), y).backward()


class Reader(nn.Module):
    """Reads packed sequences; the mean over a sequence's steps is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.top = nn.RNN(6, 5), nn.Linear(5, 3)
        self.double()
        fill(self, torch.Generator().manual_seed(0))

    def forward(self, x: Tensor, lengths: Tensor, tokens: bool = False) -> Tensor:
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        steps, _ = pad_packed_sequence(self.rnn(packed)[0])
        return self.top(steps) if tokens else self.top(steps.sum(0) / lengths[:, None])


@pytest.mark.parametrize("lengths", [(4, 4, 4), (2, 4, 1), (1, 3, 4)])
def test_rows_of_a_packed_sequence_get_the_signal_of_their_sample(lengths):
    model, lengths = Reader(), torch.tensor(lengths)
    x, y = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(2)).double(), torch.tensor([0, 2, 1])
    attach(model, "dfa", points=["rnn"])
    output = model(x, lengths)
    (error,) = torch.autograd.grad(cross_entropy(output, y), output, retain_graph=True)
    cross_entropy(output, y).backward()

    drawn = (torch.rand(3, 5, generator=feedback_generator(0)) * 2 - 1).double()
    rnn = Reader().rnn
    expected = torch.zeros_like(rnn.weight_ih_l0)
    for sample, length in enumerate(lengths.tolist()):  # each sequence alone, its signal at every step
        steps, _ = rnn(x[:length, sample : sample + 1])
        signal = (error[sample] @ drawn / 5**0.5 / length**0.5).expand_as(steps)
        expected += torch.autograd.grad(steps, rnn.weight_ih_l0, signal)[0]
    torch.testing.assert_close(model.rnn.weight_ih_l0.grad, expected)


def test_a_packed_sequence_below_an_output_for_every_step_wants_to_be_told():
    """Here the numbers of rows are equal, so that only their order is wrong."""
    model, lengths = Reader(), torch.tensor([4, 4, 4])
    x = torch.randn(4, 3, 6).double()
    attachment = attach(model, "dfa", points=["rnn"])
    with pytest.raises(DFAError, match=r"(?s)'rnn' is a packed sequence of 3 samples.*12 rows.*attachment.samples"):
        model(x, lengths, tokens=True)
    with attachment.samples({"rnn": torch.arange(12)}):  # time first, and the samples in a stable order
        model(x, lengths, tokens=True).sum().backward()
    assert model.rnn.weight_ih_l0.grad is not None
