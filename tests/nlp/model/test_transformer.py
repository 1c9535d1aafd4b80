"""The Transformer, against torch's own, and its gradients under DFA, against the rule written by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nlp.model.transformer import LanguageModel, cross_entropy
from nlp.presets import Preset
from tests.draws import feedback_generator
from tinydfa import Feedback, Method, attach, doctor

V, D, FF, T, B = 13, 8, 20, 6, 3  # the widest point is FF wide under micro


def tiny(**options):
    sizes = {"layers": 3, "d_model": D, "d_ff": FF, "heads": 2, "chunk": T, "dropout": 0.0}
    return Preset(**({"method": "bp"} | sizes | options))


def model_of(preset, seed=0):
    torch.manual_seed(seed)
    model = LanguageModel(V, preset)
    return model, attach(model, preset.method, feedback=Feedback(seed=7))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, V, (B, T), generator=generator), torch.randint(0, V, (B, T), generator=generator)


def torchs_layers(model):
    """`nn.TransformerEncoderLayer`s with the weights of our blocks."""
    layers = []
    for block in model.blocks:
        layer = nn.TransformerEncoderLayer(D, 2, FF, dropout=0.0, batch_first=True)
        ours = {
            "self_attn.in_proj_weight": block.attention.qkv.weight,
            "self_attn.in_proj_bias": block.attention.qkv.bias,
            "self_attn.out_proj.weight": block.attention.out.weight,
            "self_attn.out_proj.bias": block.attention.out.bias,
            "linear1.weight": block.up.weight,
            "linear1.bias": block.up.bias,
            "linear2.weight": block.down.weight,
            "linear2.bias": block.down.bias,
            "norm1.weight": block.norm1.weight,
            "norm1.bias": block.norm1.bias,
            "norm2.weight": block.norm2.weight,
            "norm2.bias": block.norm2.bias,
        }
        layer.load_state_dict({name: value.detach().clone() for name, value in ours.items()})
        layers.append((layer, dict(zip(ours, ours.values(), strict=True))))
    return layers


def embedded(weight, tokens):
    """Scaled embeddings and positions, position by position."""
    table = torch.tensor(
        [
            [(math.sin, math.cos)[i % 2](t / 10_000 ** (2 * (i // 2) / D)) for i in range(D)]
            for t in range(tokens.shape[1])
        ]
    )
    return F.embedding(tokens, weight) * D**0.5 + table


def mask():
    return torch.full((T, T), -math.inf).triu(1)


def assert_layers_agree(layers):
    for layer, ours in layers:
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(ours[name].grad, parameter.grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("granularity", ["macro", "micro"])
def test_outputs_and_backpropagated_gradients_are_those_of_torchs_transformer(granularity, tied, batch):
    model, _ = model_of(tiny(granularity=granularity, tied=tied))
    layers = torchs_layers(model)
    x, y = batch
    logits = model(x)
    F.cross_entropy(logits.flatten(0, 1), y.flatten()).backward()

    weight = model.embedding.weight.detach().clone().requires_grad_()
    top = weight if tied else model.decoder.weight.detach().clone().requires_grad_()
    h = embedded(weight, x)
    for layer, _ in layers:
        h = layer(h, src_mask=mask())
    theirs = h @ top.T + (0 if tied else model.decoder.bias)
    torch.testing.assert_close(logits, theirs)
    F.cross_entropy(theirs.flatten(0, 1), y.flatten()).backward()
    assert_layers_agree(layers)
    torch.testing.assert_close(model.embedding.weight.grad, weight.grad)
    torch.testing.assert_close(model.decoder.weight.grad, top.grad)


def segments(layer, x, micro, norm=True):
    """What one of torch's layers passes on at each feedback point, cut there; without `norm`, the last norm's input."""
    if not micro and norm:
        return [layer(x, src_mask=mask())]
    attended = layer.norm1(x + layer.self_attn(x, x, x, attn_mask=mask(), need_weights=False)[0])
    below = attended.detach() if micro else attended
    wide = F.relu(layer.linear1(below))
    added = below + layer.linear2(wide.detach() if micro else wide)
    return [*([attended, wide] if micro else []), layer.norm2(added) if norm else added]


@pytest.mark.parametrize("last", ["projected", "error"])
@pytest.mark.parametrize("error_at", ["hidden", "norm", "logits"])
@pytest.mark.parametrize("granularity", ["macro", "micro"])
@pytest.mark.parametrize("points_embedding", [False, True])
def test_dfa_gradients_are_the_rule_written_by_hand(granularity, points_embedding, error_at, last, batch):
    micro = granularity == "micro"
    options = {"points_embedding": points_embedding, "error_at": error_at, "last_block": last}
    model, _ = model_of(tiny(method="dfa", granularity=granularity, **options))
    layers = torchs_layers(model)
    x, y = batch
    (cross_entropy(model(x), y) / y.numel()).backward()

    weight = model.embedding.weight.detach().clone().requires_grad_()
    scaled = F.embedding(x, weight) * D**0.5
    h = embedded(weight, x)
    points = [scaled] if points_embedding else []
    for layer, _ in layers:
        below = h.detach() if points_embedding or layer is not layers[0][0] else h
        passed = segments(layer, below, micro, norm=layer is not layers[-1][0] or error_at != "norm")
        points += passed
        h = passed[-1].detach()
    if error_at == "norm":
        top, unnormalised = layers[-1][0].norm2, h.requires_grad_()
        h = top(unnormalised)
    probabilities = (h @ model.decoder.weight.T + model.decoder.bias).softmax(dim=2)
    error = (probabilities - F.one_hot(y, V)) / y.numel()
    hidden_error = error @ model.decoder.weight
    e = error if error_at == "logits" else hidden_error
    if error_at == "norm":
        h.backward(hidden_error.detach())
        e = unnormalised.grad
    largest = FF if micro else D
    feedback = torch.rand(e.shape[2], largest, generator=feedback_generator(7)) * 2 - 1
    signals = [e @ feedback[:, : point.shape[2]] / largest**0.5 for point in points]
    if last == "error" and error_at != "logits":
        signals[-1] = e
    torch.autograd.backward(points, [signal.detach() for signal in signals])

    assert_layers_agree(layers)
    torch.testing.assert_close(model.embedding.weight.grad, weight.grad)
    torch.testing.assert_close(model.decoder.weight.grad, torch.einsum("btv,btd->vd", error, h))


def test_a_saved_model_has_the_same_names_wherever_the_error_is_taken(batch):
    found = []
    for place in ("hidden", "norm", "logits"):
        model, _ = model_of(tiny(method="dfa", error_at=place))
        model(batch[0]).sum().backward()
        found.append(set(model.state_dict()))
    assert found == [{name for name, _ in model.named_parameters()} | {"head.feedback_matrix"}] * 3


def test_shallow_trains_the_decoder_alone(batch):
    model, _ = model_of(tiny(method="shallow"))
    cross_entropy(model(batch[0]), batch[1]).backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {"decoder.weight", "decoder.bias"}


@pytest.mark.parametrize(
    ("options", "number", "widths"),
    [
        ({}, 3, {D}),
        ({"granularity": "micro"}, 9, {D, FF}),
        ({"granularity": "micro", "points_embedding": True}, 10, {D, FF}),
        ({"granularity": "micro", "error_at": "norm"}, 9, {D, FF}),
    ],
)
def test_macro_has_one_point_a_block_and_micro_three(options, number, widths, batch):
    model, attachment = model_of(tiny(method="dfa", **options))
    cross_entropy(model(batch[0]), batch[1]).backward()
    assert len(attachment.points) == number
    assert set(attachment.points.values()) == widths


@pytest.mark.parametrize("attention", ["standard", "fixed", "dense", "random"])
def test_no_position_sees_a_later_one(attention, batch):
    model, _ = model_of(tiny(attention=attention, heads=4))
    tokens = batch[0]
    before = model(tokens)
    for place in range(1, T):
        changed = tokens.clone()
        changed[:, place:] = (changed[:, place:] + 1) % V
        after = model(changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.allclose(after[:, place:], before[:, place:])


@pytest.mark.parametrize("method", list(Method))
def test_every_method_lowers_the_loss(method, batch):
    preset = tiny(method=method, granularity="micro", error_at="logits" if method is Method.DRTP else "hidden")
    model, attachment = model_of(preset)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(100):
        attachment.target = batch[1] if method is Method.DRTP else None
        loss = cross_entropy(model(batch[0]), batch[1]) / batch[1].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.parametrize(
    ("method", "dropout", "precision", "error_at"),
    [
        ("bp", 0.0, "fp32", "hidden"),
        ("dfa", 0.1, "fp32", "hidden"),
        ("dfa", 0.1, "fp32", "norm"),
        ("drtp", 0.0, "fp32", "logits"),
        ("dfa", 0.0, "bf16", "hidden"),
    ],
)
def test_compiled_in_one_graph_the_gradients_stay(method, dropout, precision, error_at, batch):
    x, y = batch
    found = []
    for compiled in (False, True):
        preset = tiny(method=method, granularity="micro", error_at=error_at, layers=2, dropout=dropout)
        model, attachment = model_of(preset)
        net = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
        attachment.target = y
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = net(x)
        cross_entropy(logits.float(), y).backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in found[0].items():
        tolerance = {"rtol": 0.1, "atol": 0.1} if precision == "bf16" else {}
        torch.testing.assert_close(found[1][name], gradient, **tolerance)


@pytest.mark.parametrize("granularity", ["macro", "micro"])
def test_replayed_below_the_last_norm_the_gradients_stay(granularity, batch):
    x, y = batch
    found = []
    for memory in (None, "replay", 50_000):  # bytes
        torch.manual_seed(0)
        model = LanguageModel(V, tiny(method="dfa", granularity=granularity, error_at="norm")).double()
        attach(model, "dfa", feedback=Feedback(seed=7), memory=memory)
        cross_entropy(model(x), y).backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


@pytest.mark.parametrize("error_at", ["hidden", "norm"])
def test_the_doctor_finds_nothing_wrong(error_at, batch):
    model, _ = model_of(tiny(method="dfa", granularity="micro", error_at=error_at))
    diagnosis = doctor(model, batch, lambda model, batch: cross_entropy(model(batch[0]), batch[1]))
    assert diagnosis.healthy, diagnosis


def test_a_target_of_minus_100_does_not_count(batch):
    model, _ = model_of(tiny())
    x, y = batch
    whole = cross_entropy(model(x)[:, :4], y[:, :4])
    ignored = y.clone()
    ignored[:, 4:] = -100
    torch.testing.assert_close(cross_entropy(model(x), ignored), whole)


def test_dropout_is_on_while_training_alone(batch):
    model, _ = model_of(tiny(dropout=0.5))
    assert not torch.equal(model(batch[0]), model(batch[0]))
    model.eval()
    assert torch.equal(model(batch[0]), model(batch[0]))


def test_first_weights_of_embedding_and_decoder_are_small_and_uniform():
    model = LanguageModel(500, tiny())
    for weight in (model.embedding.weight, model.decoder.weight):
        assert 0.099 < weight.abs().max() <= 0.1
        assert weight.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.05)


def test_a_longer_sequence_than_the_model_was_built_for_is_refused():
    with pytest.raises(ValueError, match="a sequence of 7 tokens, and the model was built for 6"):
        LanguageModel(V, tiny())(torch.zeros(1, 7, dtype=torch.int64))
