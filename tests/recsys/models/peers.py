"""torchfm's five models with the weights of ours: the oracle for what ours compute.

torchfm has a table, an offset list and a lookup of its own in every part, and none of our shortcuts.
"""

import re
import warnings

import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchfm.model.afi import AutomaticFeatureInteractionModel
    from torchfm.model.afn import AdaptiveFactorizationNetwork
    from torchfm.model.dcn import DeepCrossNetworkModel
    from torchfm.model.dfm import DeepFactorizationMachineModel
    from torchfm.model.fm import FactorizationMachineModel

from recsys.preset import Preset


def torchfm_model(preset: Preset, field_dims) -> nn.Module:
    """torchfm's model of the sizes of `preset`."""
    dropouts = (preset.dropout, preset.dropout)
    match preset.model:
        case "fm":
            return FactorizationMachineModel(field_dims, preset.embed)
        case "deepfm":
            return DeepFactorizationMachineModel(field_dims, preset.embed, preset.mlp, preset.dropout)
        case "dcn":
            return DeepCrossNetworkModel(field_dims, preset.embed, preset.cross_layers, preset.mlp, preset.dropout)
        case "autoint":
            sizes = (preset.embed, preset.attention, preset.heads, preset.attention_layers, preset.mlp)
            return AutomaticFeatureInteractionModel(field_dims, *sizes, dropouts)
        case _:
            return AdaptiveFactorizationNetwork(field_dims, preset.embed, preset.neurons, preset.mlp, dropouts)


def pairs(ours: nn.Module, theirs: nn.Module):
    """(our tensor, their tensor, how theirs becomes ours) for every parameter and buffer that both have."""
    found = [(ours.embedding.weight, theirs.embedding.embedding.weight, same)]
    if hasattr(ours, "linear"):
        found += [
            (ours.linear.table.weight, theirs.linear.fc.weight, same),
            (ours.linear.bias, theirs.linear.bias, same),
        ]
    if hasattr(ours, "mlp"):
        hidden = [layer for layer in theirs.mlp.mlp if isinstance(layer, (nn.Linear, nn.BatchNorm1d))]
        linears, norms = hidden[0 : 2 * len(ours.mlp) : 2], hidden[1 : 2 * len(ours.mlp) : 2]
        for layer, linear, norm in zip(ours.mlp, linears, norms, strict=True):
            found += [(layer.linear.weight, linear.weight, same), (layer.norm.weight, norm.weight, same)]
            found += [(layer.norm.bias, norm.bias, same), (layer.norm.running_var, norm.running_var, same)]
            found.append((layer.norm.running_mean, norm.running_mean, without(linear.bias)))
        if not hasattr(ours, "cross"):
            found += [(ours.top.weight, hidden[-1].weight, same), (ours.top.bias, hidden[-1].bias, same)]
    if hasattr(ours, "cross"):
        found += [
            (mine.weight, other.weight, same) for mine, other in zip(ours.cross.weights, theirs.cn.w, strict=True)
        ]
        found += [(mine, other, same) for mine, other in zip(ours.cross.biases, theirs.cn.b, strict=True)]
        found += [(ours.top.weight, theirs.linear.weight, same), (ours.top.bias, theirs.linear.bias, same)]
    if hasattr(ours, "attention"):
        for mine, other in zip(ours.attention, theirs.self_attns, strict=True):
            found += [(mine.project.weight, other.in_proj_weight, same), (mine.project.bias, other.in_proj_bias, same)]
            found += [(mine.out.weight, other.out_proj.weight, same), (mine.out.bias, other.out_proj.bias, same)]
        for mine, other in (
            (ours.widen, theirs.atten_embedding),
            (ours.residual, theirs.V_res_embedding),
            (ours.cross_top, theirs.attn_fc),
        ):
            found += [(mine.weight, other.weight, same), (mine.bias, other.bias, same)]
    if hasattr(ours, "logarithmic"):
        neurons, embed = ours.logarithmic.linear.out_features, ours.embedding.embedding_dim

        def by_coordinate(tensor):  # their column j d + i is our column i m + j
            return tensor.view(-1, neurons, embed).transpose(1, 2).reshape(tensor.shape)

        found = [pair if pair[0] is not ours.mlp[0].linear.weight else (*pair[:2], by_coordinate) for pair in found]
        found.append((ours.logarithmic.linear.weight, theirs.LNN.weight, same))
    return found


def same(tensor):
    return tensor


def without(bias):
    """Their normalisation takes off the bias of the linear layer before it, which ours has not."""
    return lambda tensor: tensor - bias


@torch.no_grad()
def copy_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Give our model the weights of theirs; fails if any of either is left out."""
    found = pairs(ours, theirs)
    assert {id(mine) for mine, _, _ in found} >= {id(p) for p in ours.parameters()}
    left_out = {name for name, p in theirs.named_parameters() if id(p) not in {id(other) for _, other, _ in found}}
    assert all(re.fullmatch(r"mlp\.mlp\.\d+\.bias", name) for name in left_out)  # see `without`
    for mine, other, convert in found:
        mine.copy_(convert(other))
