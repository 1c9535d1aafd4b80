"""To everybody else an attached model looks as it did: its forward, its class, its copies, what wraps it."""

from __future__ import annotations

import copy
import functools
import inspect
import io
import pickle
import types
import typing
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

from tests.tinydfa.nets import Mlp, assert_gradients, batch, gradients_of, mlp_rule
from tinydfa import DFAError, attach, attachment_of
from tinydfa.errors import PointError


def by_hand(net: Mlp, x: Tensor, y: Tensor, factor: float = 1.0) -> dict[str, Tensor]:
    return mlp_rule(net, x, y, attachment_of(net).head.feedback_matrix, lambda e: factor * e)


def doubled(forward):
    @functools.wraps(forward)
    def wrapper(*args, **kwargs):
        wrapper.seen.append((len(args), sorted(kwargs)))
        return 2 * forward(*args, **kwargs)

    wrapper.seen = []
    return wrapper


class Many(Mlp):
    """A forward with every kind of parameter."""

    def forward(
        self, x: Tensor, /, gain: float = 2.0, *others: Tensor, shift: Tensor | None = None, **more: int
    ) -> Tensor:
        """Returns the logits."""
        self.got = (gain, others, shift, more)
        return super().forward(x) * gain


class Decorated(Mlp):
    @doubled
    def forward(self, x: Tensor, gain: float = 2.0) -> Tensor:
        return super().forward(x) * gain


@pytest.mark.parametrize("build", [Mlp, Many, Decorated])
def test_forward_shows_what_the_original_shows(build):
    net, plain = build(), build()
    attach(net, "dfa")
    assert inspect.signature(net.forward) == inspect.signature(plain.forward)
    assert inspect.signature(type(net).forward) == inspect.signature(build.forward)
    assert typing.get_type_hints(net.forward) == typing.get_type_hints(plain.forward)
    assert net.forward.__doc__ == plain.forward.__doc__
    assert net.forward.__name__ == "forward"
    assert net.forward.__globals__ is plain.forward.__globals__
    assert isinstance(net.forward, types.MethodType)
    ours, theirs = net.forward.__code__, plain.forward.__code__
    assert ours.co_varnames[: ours.co_argcount] == theirs.co_varnames[: theirs.co_argcount]
    assert "forward" not in vars(net)


def test_arguments_arrive_as_they_were_given():
    net, (x, _) = Many(), batch()
    expected = 3 * Mlp()(x)
    attach(net, "dfa")
    torch.testing.assert_close(net(x, 3.0, x, shift=x, depth=4), expected)
    assert net.got == (3.0, (x,), x, {"depth": 4})
    net(x)
    assert net.got == (2.0, (), None, {})


def test_a_decorator_sees_the_call_as_it_was_written():
    net, (x, _) = Decorated(), batch()
    attach(net, "dfa")
    Decorated.forward.seen.clear()
    net(x)
    net(x, gain=1.0)
    assert Decorated.forward.seen == [(2, []), (2, ["gain"])]


@pytest.mark.parametrize("kind", ["method", "function"])
def test_a_forward_that_the_instance_has_is_called_and_put_back(kind):
    net, (x, y) = Mlp(), batch()

    def three_times(x: Tensor, gain: int = 3) -> Tensor:
        return gain * Mlp.forward(net, x)

    own = (
        three_times
        if kind == "function"
        else types.MethodType(lambda self, x, gain=3: gain * Mlp.forward(self, x), net)
    )
    net.forward = own
    attachment = attach(net, "dfa")
    assert list(inspect.signature(net.forward).parameters) == ["x", "gain"]
    torch.testing.assert_close(net(x), 3 * Mlp()(x))
    cross_entropy(net(x) / 3, y).backward()
    assert_gradients(net, by_hand(net, x, y, 1 / 3))  # the error is taken at what the instance's forward returns
    attachment.detach()
    assert vars(net)["forward"] is own


def test_the_class_keeps_its_name_and_its_bases():
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    text = repr(net)
    attachment = attach(net, "dfa", points=["1"])
    assert isinstance(net, nn.Sequential)
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(type(net), name) == getattr(nn.Sequential, name)
    assert repr(net) == text
    attachment.detach()
    assert type(net) is nn.Sequential


def test_no_class_is_declared_to_a_base_that_keeps_a_register():
    class Registered(Mlp):
        known: typing.ClassVar[list[type]] = []

        def __init_subclass__(cls, name: str) -> None:
            cls.known.append(cls)

    class Named(Registered, name="named"):
        pass

    attach(Named(), "dfa")
    assert Registered.known == [Named]


def pickled(net: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(net))


def saved(net: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def averaged(net: nn.Module) -> nn.Module:
    return AveragedModel(net).module


@pytest.mark.parametrize("make", [copy.deepcopy, pickled, saved, averaged])
def test_a_copy_computes_and_trains_with_its_own_weights(make):
    net, (x, y) = Mlp(), batch()
    attach(net, "dfa")
    expected = net(x)
    kept = make(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(kept(x), expected)
    cross_entropy(kept(x), y).backward()
    assert_gradients(kept, by_hand(kept, x, y))
    assert gradients_of(net) == {}
    attachment_of(kept).detach()
    assert type(kept) is Mlp


def test_a_moving_average_follows_the_model():
    net, (x, _) = Mlp(), batch()
    attach(net, "dfa")
    average = AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    average.update_parameters(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)
    average.update_parameters(net)
    plain = Mlp()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(average(x), plain(x))


def test_a_shallow_copy_trains_the_shared_weights():
    net, (x, y) = Mlp(), batch()
    attach(net, "dfa")
    cross_entropy(copy.copy(net)(x), y).backward()
    assert_gradients(net, by_hand(net, x, y))


def test_functional_call_computes_with_the_given_weights():
    net, other, (x, _) = Mlp(), Mlp(seed=5), batch()
    attach(net, "dfa")
    found = torch.func.functional_call(net, dict(other.named_parameters()), (x,))
    torch.testing.assert_close(found, other(x))


def other_weights(net: nn.Module) -> nn.Module:
    """A replica as `nn.DataParallel` makes one, here with weights twice as large."""
    replica = net._replicate_for_data_parallel()
    for name, child in net._modules.items():
        replica._modules[name] = other_weights(child)
    for name, parameter in net._parameters.items():
        replica._parameters[name] = 2 * parameter.detach()
    return replica


@pytest.mark.parametrize("method", ["dfa", "bp", "fa"])
def test_a_replica_computes_with_its_own_weights(method):
    net, plain, (x, _) = Mlp(), Mlp(), batch()
    attach(net, method)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(2)
        torch.testing.assert_close(other_weights(net)(x), plain(x))


def test_replicas_that_train_are_refused_with_the_way_out():
    net = Mlp()
    attachment = attach(net, "dfa")
    with pytest.raises(DFAError, match="DistributedDataParallel"):
        other_weights(net)
    attachment.method = "bp"
    other_weights(net)


def wrapped(net: nn.Module) -> None:
    """Wraps `forward` as tools do that know of bound methods (mixed precision, offloading)."""
    net.forward = types.MethodType(doubled(net.forward.__func__), net)


def test_a_wrapper_put_on_later_may_be_taken_off():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")
    wrapped(net)
    torch.testing.assert_close(net(x), 2 * Mlp()(x))
    net.forward = types.MethodType(net.forward.__wrapped__, net)  # as `unwrap` functions do
    cross_entropy(net(x), y).backward()
    assert_gradients(net, by_hand(net, x, y))
    attachment.detach()
    assert type(net) is Mlp
    assert "forward" not in vars(net)


def test_detach_below_a_wrapper_leaves_the_plain_model():
    net, plain, (x, y) = Mlp(), Mlp(), batch()
    attachment = attach(net, "dfa")
    wrapped(net)
    attachment.detach()
    cross_entropy(net(x) / 2, y).backward()
    cross_entropy(plain(x), y).backward()
    assert_gradients(net, gradients_of(plain))


def test_attached_again_below_a_wrapper_makes_one_pass():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")
    wrapped(net)
    attachment.detach()
    attach(net, "dfa")
    cross_entropy(net(x) / 2, y).backward()
    assert_gradients(net, by_hand(net, x, y, 1 / 2))  # now the error is taken at what the wrapper returns


def test_a_copy_of_a_wrapped_model_computes_with_its_own_weights():
    net, (x, y) = Mlp(), batch()
    attach(net, "dfa")
    wrapped(net)
    kept = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(kept(x), 2 * Mlp()(x))
    cross_entropy(kept(x) / 2, y).backward()
    assert_gradients(kept, by_hand(kept, x, y))
    assert gradients_of(net) == {}


def test_detach_keeps_a_wrapper_on_a_wrapper():
    net, (x, _) = Mlp(), batch()
    wrapped(net)
    attachment = attach(net, "dfa")
    wrapped(net)
    torch.testing.assert_close(net(x), 4 * Mlp()(x))
    attachment.detach()
    torch.testing.assert_close(net(x), 4 * Mlp()(x))
    attach(net, "dfa")
    torch.testing.assert_close(net(x), 4 * Mlp()(x))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = Mlp(), nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.scale


def test_a_class_derived_from_the_attached_one_outlives_detach():
    model, (x, y) = Scaled(), batch()
    attachment = attach(model, "dfa")
    parametrize.register_parametrization(model, "scale", nn.Identity())
    cross_entropy(model(x), y).backward()
    hidden = gradients_of(model)["net.hidden.0.weight"]
    torch.testing.assert_close(
        hidden, mlp_rule(model.net, x, y, attachment.head.feedback_matrix, lambda e: e)["hidden.0.weight"]
    )
    attachment.detach()
    model.zero_grad()
    plain = Mlp()
    cross_entropy(model(x), y).backward()
    cross_entropy(plain(x), y).backward()
    assert_gradients(model.net, gradients_of(plain))
    attachment = attach(model, "dfa")
    model.zero_grad()
    cross_entropy(model(x), y).backward()
    torch.testing.assert_close(gradients_of(model)["net.hidden.0.weight"], hidden)


def test_a_users_hook_sees_what_the_model_returns():
    net, (x, y) = Mlp(), batch()
    seen = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(output))
    attach(net, "dfa")
    net.register_forward_hook(lambda module, inputs, output: seen.append(output))
    output = net(x)
    assert seen[0] is seen[1] is output
    cross_entropy(output, y).backward()
    assert_gradients(net, by_hand(net, x, y))


def test_forward_called_by_name_trains_as_well():
    net, (x, y) = Mlp(), batch()
    attach(net, "dfa")
    cross_entropy(net.forward(x), y).backward()
    assert_gradients(net, by_hand(net, x, y))


def test_a_part_of_an_attached_model_called_alone_is_refused_with_the_way_out():
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    attach(model, "dfa", points=["1"])
    with pytest.raises(PointError, match=r"attachment\.detach"):
        model[:2](batch()[0])
    with torch.no_grad():
        model[:2](batch()[0])


@pytest.mark.parametrize("first", ["dfa", "bp"])
def test_gradients_kept_as_zeros_below_shallow_are_told(first):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, first)
    optimizer = torch.optim.AdamW(net.parameters())

    def step(set_to_none: bool) -> None:
        optimizer.zero_grad(set_to_none=set_to_none)
        cross_entropy(net(x), y).backward()
        optimizer.step()

    for _ in range(2):
        step(set_to_none=False)
    attachment.method = "shallow"
    with pytest.warns(UserWarning, match="set_to_none=True"):
        step(set_to_none=False)
    step(set_to_none=False)  # told once


def test_gradients_that_are_dropped_below_shallow_need_no_word():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")
    optimizer = torch.optim.AdamW(net.parameters())
    for method in ("dfa", "shallow"):
        attachment.method = method
        before = net.hidden[0].weight.detach().clone()
        for _ in range(3):
            loss = cross_entropy(net(x), y)  # the old gradients are still there
            optimizer.zero_grad()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                loss.backward()
            optimizer.step()
    assert torch.equal(net.hidden[0].weight, before)
