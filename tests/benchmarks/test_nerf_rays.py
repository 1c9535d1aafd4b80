"""The benchmark of radiance fields: its limit counts products, and it runs."""

import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import nerf_rays
from nerf.field.network import Architecture, Network
from tinydfa import attach


def counted(shape: Architecture, method: str) -> int:
    network = Network(shape)
    attach(network, method)
    points, views = torch.randn(20, 3), torch.randn(1, 3)
    with FlopCounterMode(display=False) as counter:
        network(points, views).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("shape", [Architecture(depth=8, width=16), Architecture(depth=2, width=12, views=False)])
def test_the_limit_is_the_count_of_products(shape):
    if shape.views:  # the direction's products, of one ray, are left out of the limit: make them vanish
        shape = Architecture(depth=8, width=16, view_frequencies=0)
    ours, theirs = counted(shape, "dfa"), counted(shape, "bp")
    direction = 2 * 2 * 3 * 8 if shape.views else 0  # forward and weight, 3 inputs, 8 outputs, 2 operations each
    assert (ours - direction) / (theirs - direction) == pytest.approx(nerf_rays.limit(shape))


def test_both_parts_are_measured(tmp_path, capsys, monkeypatch):
    tiny = replace(nerf_rays.PRESETS["small_bp"], depth=2, width=8)
    monkeypatch.setattr(nerf_rays, "PRESETS", nerf_rays.PRESETS | {"small_bp": tiny})
    monkeypatch.setattr(nerf_rays, "GRID_ROUNDS", 2)
    small = {"depth": 2, "width": 8, "rays": 4, "rounds": 1, "size": 5, "fit_steps": 1, "threads": 1}
    nerf_rays.main(nerf_rays.Config(**small, out=tmp_path / "rays.json"))
    rows = json.loads((tmp_path / "rays.json").read_text())["rows"]
    names = ["bp", "dfa", "bp", "bp, empty space left out", "dfa", "dfa, empty space left out"]
    assert [row["contestant"] for row in rows] == names
    assert all(row["rays a second"] > 0 for row in rows)
    assert all(row["PSNR"] > 0 for row in rows[2:])
