"""The models against torchfm's, and what the methods send to their layers against rules written by hand."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from harness.errors import UserError
from recsys.models.click_models import build_model
from recsys.preset import MODELS, Preset
from recsys.training import withhold_feedback
from tests.recsys.models.peers import copy_weights, pairs, torchfm_model
from tinydfa import Method, attach, measure_alignment

DIMS = (3, 7, 2, 11, 5)
SIZES = {"embed": 4, "mlp": (9, 8), "cross_layers": 3, "attention": 6, "heads": 2, "attention_layers": 3, "neurons": 7}
DEEP = [model for model in MODELS if model != "fm"]


def preset(model, **changes):
    return Preset(model=model, lr=1e-3, **(SIZES | changes))


def make(model, seed=0, **changes):
    torch.manual_seed(seed)
    return build_model(preset(model, **changes), DIMS)


def rows(count=17, seed=1):
    generator = torch.Generator().manual_seed(seed)
    fields = torch.stack([torch.randint(0, size, (count,), generator=generator) for size in DIMS], dim=1).int()
    return fields, (torch.rand(count, generator=generator) < 0.3).float()


def loss_of(model, fields, labels):
    return F.binary_cross_entropy_with_logits(model(fields).squeeze(1), labels)


def like_torchfm(model, **changes):
    """Our model and torchfm's, with equal random weights everywhere, biases and running statistics too."""
    ours, theirs = make(model, **changes), torchfm_model(preset(model, **changes), DIMS)
    for tensor in (*theirs.parameters(), *theirs.buffers()):
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.1, 1.0) if tensor.min() >= 0 else torch.nn.init.normal_(tensor, std=0.4)
    copy_weights(ours, theirs)
    return ours, theirs


@pytest.mark.parametrize("model", MODELS)
def test_a_model_computes_what_torchfm_computes(model):
    ours, theirs = like_torchfm(model, dropout=0.4)
    fields, _ = rows()
    torch.testing.assert_close(torch.sigmoid(ours.eval()(fields).squeeze(1)), theirs.eval()(fields.long()))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_every_gradient_is_that_of_torchfm(model, sparse):
    ours, theirs = like_torchfm(model, sparse_embeddings=sparse)
    fields, labels = rows()
    loss_of(ours, fields, labels).backward()
    F.binary_cross_entropy(theirs(fields.long()), labels).backward()
    for mine, other, convert in pairs(ours, theirs):
        if other.requires_grad:
            found = mine.grad.to_dense() if mine.grad.is_sparse else mine.grad
            torch.testing.assert_close(found, convert(other.grad), rtol=1e-4, atol=1e-6)


def test_sparse_gradients_hold_the_rows_of_the_batch_alone():
    model = make("deepfm", sparse_embeddings=True)
    fields = torch.tensor([[0, 1, 0, 2, 3], [0, 6, 1, 2, 3]], dtype=torch.int32)
    loss_of(model, fields, torch.ones(2)).backward()
    for table in (model.embedding, model.linear.table):
        assert table.weight.grad.coalesce().indices().flatten().tolist() == [0, 4, 9, 10, 11, 14, 26]


@pytest.mark.parametrize("model", DEEP)
def test_the_points_stand_where_the_release_has_them(model):
    expected = {
        "deepfm": ["embedding_point", "mlp.0.point", "mlp.1.point"],
        "dcn": ["embedding_point", "cross.points.0", "cross.points.1", "mlp.0.point", "mlp.1.point", "stack_point"],
        "autoint": [
            *("embedding_point", "widen_point", "attention_points.0", "attention_points.1", "cross_point"),
            *("mlp.0.point", "mlp.1.point"),
        ],
        "afn": ["embedding_point", "logarithmic_point", "mlp.0.point", "mlp.1.point"],
    }
    assert list(attach(make(model), Method.DFA).points) == expected[model]


@pytest.mark.parametrize("model", DEEP)
@pytest.mark.parametrize("method", list(Method))
def test_every_method_trains_every_model_that_has_hidden_layers(model, method):
    net = make(model)
    attachment = attach(net, method, seed=3)
    fields, labels = rows()
    if method is Method.DRTP:
        attachment.target = labels
    loss_of(net, fields, labels).backward()
    reached = {name for name, p in net.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
    first = "attention.0.project.weight" if model == "autoint" else "mlp.0.linear.weight"
    assert "top.weight" in reached
    assert (first in reached) == (method is not Method.SHALLOW)


OFFSETS = torch.tensor([0, 3, 10, 12, 23])  # where each field's rows begin


def scattered(delta, fields):
    """What ``[B, F d]`` at the embeddings is to the table of 28 categories of width 4."""
    return torch.zeros(28, 4).index_add_(0, (fields + OFFSETS).flatten(), delta.reshape(-1, 4))


def error_of(net, fields, labels):
    """The gradient of the mean loss at the logits, ``[B, 1]``."""
    with torch.no_grad():
        return (net(fields).sigmoid() - labels[:, None]) / len(labels)


def test_dfa_in_the_cross_network_follows_the_rule_written_by_hand():
    net, _ = like_torchfm("dcn")
    attachment = attach(net, Method.DFA, seed=3)
    fields, labels = rows()
    loss_of(net, fields, labels).backward()

    feedback = attachment.head.feedback_matrix
    assert feedback.shape == (1, 28)  # as wide as the stack: 20 of the cross network and 8 of the perceptron
    delta = error_of(net, fields, labels) * feedback[:, :20] / 28**0.5  # the same at every layer of one width
    with torch.no_grad():
        x = x0 = net.embedding.weight[fields + OFFSETS].flatten(1)
        for weight, bias in zip(net.cross.weights, net.cross.biases, strict=True):
            expected = ((delta * x0).sum(dim=1, keepdim=True) * x).sum(dim=0)
            torch.testing.assert_close(weight.weight.grad[0], expected)
            torch.testing.assert_close(bias.grad, delta.sum(dim=0))
            x = x0 * (x @ weight.weight[0])[:, None] + bias + x
    torch.testing.assert_close(net.embedding.weight.grad, scattered(delta, fields))


def test_alignment_is_measured_at_every_cross_layer_against_torchfms_gradient():
    net, theirs = like_torchfm("dcn")
    attachment = attach(net, Method.DFA, seed=3)
    fields, labels = rows()
    found = measure_alignment(net, lambda net: loss_of(net, fields, labels))

    inputs = []  # of torchfm's second and third layer
    for layer in theirs.cn.w[1:]:
        layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    truths = torch.autograd.grad(F.binary_cross_entropy(theirs(fields.long()), labels), inputs)
    signal = error_of(net, fields, labels) * attachment.head.feedback_matrix[:, :20]
    for name, truth in zip(("cross.points.0", "cross.points.1"), truths, strict=True):
        cosine = F.cosine_similarity(signal, truth, dim=1)
        assert found[name].mean == pytest.approx(cosine.mean().item(), abs=1e-4)


def withheld(model, method=Method.DFA):
    net, _ = like_torchfm(model)
    attachment = attach(net, method, seed=3)
    withhold_feedback(net)
    return net, attachment


def test_without_feedback_the_embeddings_of_afn_do_not_learn():
    net, _ = withheld("afn")
    loss_of(net, *rows()).backward()
    assert net.embedding.weight.grad is None
    assert net.logarithmic.linear.weight.grad is not None


def test_with_feedback_the_embeddings_of_afn_get_the_projected_error():
    net, _ = like_torchfm("afn")
    attachment = attach(net, Method.DFA, seed=3)
    fields, labels = rows()
    loss_of(net, fields, labels).backward()
    delta = error_of(net, fields, labels) * attachment.head.feedback_matrix[:, :20] / 28**0.5  # 7 neurons x 4
    torch.testing.assert_close(net.embedding.weight.grad, scattered(delta, fields))


@pytest.mark.parametrize("method", [Method.DFA, Method.SHALLOW])
def test_without_feedback_the_embeddings_of_deepfm_learn_through_the_products_alone(method):
    net, _ = withheld("deepfm", method)
    fields, labels = rows()
    loss_of(net, fields, labels).backward()
    error = error_of(net, fields, labels)
    x = net.embedding.weight.detach()[fields + OFFSETS]
    products = error[:, :, None] * (x.sum(dim=1, keepdim=True) - x)  # derivative of the sum over pairs
    torch.testing.assert_close(net.embedding.weight.grad, scattered(products, fields))


def test_withheld_feedback_leaves_the_signal_of_other_layers_as_it_was():
    net, fed = withheld("afn")[0], make("afn")
    fed.load_state_dict(net.state_dict())
    attach(fed, Method.DFA, seed=3)
    for model in (net, fed):
        loss_of(model, *rows()).backward()
    torch.testing.assert_close(net.mlp[0].linear.weight.grad, fed.mlp[0].linear.weight.grad)


@pytest.mark.parametrize("model", DEEP)
def test_shallow_trains_what_lies_above_the_last_point(model):
    net = make(model)
    attach(net, Method.SHALLOW)
    loss_of(net, *rows()).backward()
    trained = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None}
    above = {"deepfm": {"linear", "embedding", "top"}, "dcn": {"top"}, "autoint": {"linear", "cross_top", "top"}}
    assert trained == above.get(model, {"linear", "top"})


@pytest.mark.parametrize("method", [Method.BP, Method.DFA])
@pytest.mark.parametrize("model", DEEP)
def test_a_compiled_model_is_one_graph_with_the_same_gradients(model, method):
    eager = make(model)
    compiled = make(model)
    for net in (eager, compiled):
        attach(net, method, seed=3)
    fields, labels = rows()
    loss_of(eager, fields, labels).backward()
    loss_of(torch.compile(compiled, backend="aot_eager", fullgraph=True), fields, labels).backward()
    for mine, other in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_logarithmic_neurons_give_the_same_with_and_without_gradients():
    net = make("afn", dropout=0.3).eval()
    fields, _ = rows()
    expected = net(fields)
    with torch.no_grad():
        torch.testing.assert_close(net(fields), expected)


def test_an_impossible_preset_is_refused():
    for changes in ({"dropout": 1.0}, {"batch": 1}, {"patience": 0}, {"attention": 7}):
        with pytest.raises(UserError, match=next(iter(changes))):
            replace(preset("fm"), **changes)
