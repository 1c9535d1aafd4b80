"""Where the error is taken, what a point is, and which rows belong to which sample: by entry, pattern, mask, index."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import batch, error_of, fill
from tinydfa import DFA, DFAError, DFALayer, Feedback, attach


def filled(model: nn.Module) -> nn.Module:
    fill(model, torch.Generator().manual_seed(0))
    return model


class Two(nn.Module):
    """A body and two heads, returned in a nest."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.actor, self.critic = nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(5, 1)
        filled(self)

    def forward(self, x: Tensor) -> dict:
        h = torch.tanh(self.body(x))
        return {"actor": self.actor(h), "more": (self.critic(h), "text")}


def test_the_error_is_taken_at_several_entries_side_by_side():
    net, x = Two(), torch.randn(1, 6)
    attachment = attach(net, "dfa", points=["body"], output=["[actor]", "[more][0]"])
    out = net(x)
    assert out["more"][1] == "text"
    loss = (out["actor"] * torch.tensor([1.0, 2.0, 3.0])).sum() + 5 * out["more"][0].sum()
    loss.backward()
    matrix = attachment.head.feedback_matrix
    assert matrix.shape == (4, 5)
    torch.testing.assert_close(net.body.bias.grad, torch.tensor([1.0, 2.0, 3.0, 5.0]) @ matrix / 5**0.5)


def test_a_loss_on_another_entry_than_the_errors_is_refused():
    net, x = Two(), torch.randn(2, 6)
    attach(net, "dfa", points=["body"])
    net(x)["actor"].sum().backward()
    with pytest.raises(DFAError, match=r"entry \[more\]\[0\].*error is taken at '\[actor\]'"):
        net(x)["more"][0].sum().backward()


def test_an_entry_that_is_not_there_is_answered_with_those_that_are():
    net = Two()
    attach(net, "dfa", points=["body"], output="[value]")
    with pytest.raises(DFAError, match=r"no tensor at \[value\]. Tensors are at: \[actor\], \[more\]\[0\]"):
        net(torch.randn(2, 6))
    with pytest.raises(DFAError, match="is no entry"):
        attach(Two(), "dfa", points=["body"], output="[actor")
    with pytest.raises(DFAError, match="one module's output"):
        attach(Two(), "dfa", points=["body"], output=["actor", "critic"])


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.top = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)
        filled(self)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, _) = self.lstm(x)
        return self.top(h[-1])


def test_the_last_state_of_an_lstm_is_a_point():
    net, (x, y) = Reader(), batch(4, 7, 6)
    attachment = attach(net, "dfa", points=["lstm[1][0]"], batch_dims={"lstm*": (0, 1)})
    output = net(x)
    cross_entropy(output, y).backward()
    error = error_of(output.detach(), y)
    twin = Reader()
    _, (h, _) = twin.lstm(x)
    h[-1].backward(error @ attachment.head.feedback_matrix / 5**0.5)
    for name, parameter in twin.lstm.named_parameters():
        torch.testing.assert_close(net.lstm.get_parameter(name).grad, parameter.grad)


def test_a_gradient_around_a_point_is_told_with_the_entry_it_came_by():
    net, (x, y) = Reader(), batch(4, 7, 6)
    attach(net, "shallow", points=["lstm"])
    with pytest.warns(UserWarning, match=r"around feedback point 'lstm'.*'lstm\[1\]\[0\]'"):
        cross_entropy(net(x), y).backward()


class Texts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 5)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(2))
        self.top = nn.Linear(5, 3)
        filled(self)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.table(ids)
        for block in self.blocks:
            x = block(x)
        return self.top((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


@pytest.mark.parametrize("spelled", ["mask", "index"])
def test_rows_that_are_left_out_receive_nothing_and_do_not_count(spelled):
    net, y = Texts(), torch.tensor([0, 1, 2])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    ids = torch.randint(1, 11, (3, 4), generator=torch.Generator().manual_seed(1)) * mask
    attachment = attach(net, "dfa", points=["blocks.*"], batch_dims={"blocks.?": (0, 1)})
    rows = mask.bool() if spelled == "mask" else torch.arange(3)[:, None].where(mask.bool(), -1).flatten()
    with attachment.samples({"blocks.*": rows}):
        output = net(ids, mask.float())
    cross_entropy(output, y).backward()
    assert not net.table.weight.grad[0].any()
    signal = error_of(output.detach(), y) @ attachment.head.feedback_matrix / 5**0.5
    own = torch.stack([signal[b] / mask[b].sum() ** 0.5 * mask[b, t] for b in range(3) for t in range(4)])
    with torch.no_grad():
        h = net.blocks[1](net.blocks[0](net.table(ids))).flatten(0, 1)
    torch.testing.assert_close(net.blocks[1][0].bias.grad, (own * (1 - h**2)).sum(0))


class Pair(nn.Module):
    """An encoder of 3 positions and a decoder of 5."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder, self.top = nn.Linear(6, 4), nn.Linear(4, 5), nn.Linear(5, 3)
        filled(self)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.encoder(x)).mean(1, keepdim=True).expand(-1, 5, -1)
        return self.top(torch.tanh(self.decoder(h)))


def test_an_encoder_receives_the_sum_over_its_sequences_positions():
    net, x = Pair(), torch.randn(2, 3, 6)
    attachment = attach(net, "dfa", points=["encoder", "decoder"])
    rows, positions = torch.arange(2).repeat_interleave(3), torch.arange(2).repeat_interleave(5)
    with attachment.samples({"encoder": (rows, positions)}):
        output = net(x)
    weight = torch.arange(30.0).view(2, 5, 3) / 30
    (output * weight).sum().backward()
    signal = weight @ attachment.head.feedback_matrix / 5**0.5  # [2, 5, D]
    torch.testing.assert_close(net.decoder.bias.grad, signal.sum((0, 1)))
    torch.testing.assert_close(net.encoder.bias.grad, 3 * signal[..., :4].sum((0, 1)) / 5**0.5 / 3**0.5)


def test_names_and_patterns_of_no_point_are_refused():
    for wrong in ({"nothing": (0,)}, {"top*": (0,)}):
        with pytest.raises(DFAError, match="no feedback point"):
            attach(Texts(), "dfa", points=["blocks.*"], batch_dims=wrong)
    attachment = attach(Texts(), "dfa", points=["blocks.*"])
    with pytest.raises(DFAError, match="samples names 'block'"), attachment.samples({"block": torch.zeros(1)}):
        pass


def test_a_picture_as_output_must_say_where_its_classes_are():
    def net() -> nn.Module:
        return filled(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1)))

    x, y = torch.randn(2, 2, 5, 6), torch.randint(0, 3, (2, 5, 6))
    model = net()
    attach(model, "dfa", points=["1"])
    with pytest.raises(DFAError, match=r"batch_dims=\(0, 2, 3\)"):
        cross_entropy(model(x), y)
    model = net()
    attachment = attach(model, "dfa", points=["1"], batch_dims=(0, 2, 3))
    output = model(x)
    cross_entropy(output, y).backward()
    rows = output.detach().permute(0, 2, 3, 1).reshape(-1, 3)
    signal = error_of(rows, y.flatten()) @ attachment.head.feedback_matrix / 4**0.5
    with torch.no_grad():
        h = model[1](model[0](x)).permute(0, 2, 3, 1).reshape(-1, 4)
    torch.testing.assert_close(model[0].bias.grad, (signal * (1 - h**2)).sum(0))


def test_columns_of_their_own_although_the_last_point_is_the_output():
    net, x = filled(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Linear(4, 3))), torch.randn(2, 6)
    attachment = attach(net, "dfa", points=["1", "2"], output="2", feedback=Feedback(shared=False))
    h = net(x)
    h.sum().backward()
    assert attachment.head.feedback_matrix.shape == (4, 5)
    assert attachment.points == {"1": 5, "2": None}


def test_the_interface_of_2020_projects_to_a_point_right_below_the_head():
    first, last, top, points = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3), [DFALayer(), DFALayer()]
    head = DFA(points)
    x = torch.randn(7, 6)
    top(head(points[1](last(points[0](first(x)))))).sum().backward()
    error = torch.ones(7, 3) @ top.weight.detach()
    torch.testing.assert_close(last.bias.grad, (error @ head.feedback_matrix[:, :4] / 5**0.5).sum(0))
    torch.testing.assert_close(first.bias.grad, (error @ head.feedback_matrix / 5**0.5).sum(0))
