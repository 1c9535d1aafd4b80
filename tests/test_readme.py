"""The README's code runs as it stands there."""

import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from tinydfa import attach, attachment_of, find_rule

ROOT = Path(__file__).resolve().parent.parent


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_readme_trains_a_model_of_ones_own(capsys):
    (code,) = python_blocks(ROOT / "README.md")
    names: dict = {}
    exec(code, names)
    assert names["attachment"] is attachment_of(names["model"])
    assert names["attachment"].points == {"1": 64, "3": 64}
    assert "nothing to change" in capsys.readouterr().out


def test_the_readme_shows_no_more_than_ten_statements():
    (code,) = python_blocks(ROOT / "README.md")
    statements = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(statements) <= 10


@pytest.mark.parametrize("page", ["docs/own-rule.md", "docs/how-it-works.md"])
def test_the_example_of_a_rule_runs_as_printed(page):
    (code,) = [block for block in python_blocks(ROOT / page) if "class Clipped" in block and "layers.*" in block]
    model = nn.Sequential(OrderedDict(layers=nn.Sequential(nn.Linear(4, 6), nn.Tanh()), top=nn.Linear(6, 2)))
    names = {"model": model}
    exec(code, names)
    model(torch.ones(3, 4)).sum().backward()
    assert names["attachment"].method == "Clipped"
    assert model.layers[0].weight.grad.any()


def test_the_example_of_a_look_fits_the_feedback_that_backpropagation_would_need():
    (code,) = [block for block in python_blocks(ROOT / "docs/how-it-works.md") if "class Nearest" in block]
    names: dict = {}
    exec(code, names)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    attachment = attach(model, names["Nearest"](), points=["1"])
    x, y = torch.randn(32, 4), torch.randn(32, 2)
    (model(x) - y).square().sum().backward()
    weight = model[2].weight.detach()
    assert (attachment.effective_feedback() - weight).norm() < 0.02 * weight.norm()


def test_the_example_of_other_options_is_a_rule_for_a_command_line(tmp_path):
    (code,) = [block for block in python_blocks(ROOT / "docs/learned-feedback.md") if "class Often" in block]
    (tmp_path / "my_rules.py").write_text(code)
    rule = find_rule(f"{tmp_path}/my_rules.py:Often")
    assert (rule.name, rule.exact_every, rule.memory) == ("Often", 10, 0.9)


def test_the_projection_by_hand_is_what_the_page_says():
    (code,) = [block for block in python_blocks(ROOT / "docs/how-it-works.md") if "from tinydfa.signals" in block]
    *lines, last = code.strip().splitlines()
    names: dict = {}
    exec("\n".join(lines), names)
    call, _, said = last.partition("#")
    assert eval(call, names)[0].tolist() == eval(said)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-cuda.txt", "requirements-docs.txt"])
def test_every_requirement_is_pinned_exactly(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    required = [line for line in lines if line.strip() and not line.startswith(("#", "-"))]
    assert required
    assert all("==" in line for line in required)
