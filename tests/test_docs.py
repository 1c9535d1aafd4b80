"""Every code block of the READMEs and of the site runs, their links lead somewhere, and the site is built strictly."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tinydfa

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("graphs", "recsys", "nlp", "nerf", "vision")
PAGES = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "*/README.md", "*/RESULTS.md", "docs/*.md")
    for path in sorted(ROOT.glob(pattern))
]
EXAMPLES = {path.read_text(encoding="utf-8").strip() for path in (ROOT / "examples").glob("*.py")}
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]*))?\)")


class Net(nn.Module):
    """What the pages' fragments call `model`: named layers, and blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 6), nn.Sequential(nn.Linear(6, 6), nn.Tanh()))
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(2)))
        self.top = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.top(self.blocks(self.layers(x)))


def blocks() -> list[Any]:
    """The Python blocks that no other test runs as an example, with the page they stand on."""
    found = []
    for page in PAGES:
        for code in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL):
            if code.strip() not in EXAMPLES:
                found.append(pytest.param(code, id=f"{page}: {code.splitlines()[0][:40]}"))
    return found


def run(code: str) -> None:
    """Run a fragment with the names that the pages take for granted."""
    torch.manual_seed(0)
    model = Net()
    names: dict[str, Any] = {
        "model": model,
        "x": torch.randn(8, 5),
        "y": torch.randint(0, 3, (8,)),
        "loss_fn": nn.functional.cross_entropy,
        "nn": nn,
        "MyLinear": type("MyLinear", (nn.Linear,), {}),
        "MyKernel": type("MyKernel", (nn.Module,), {}),
    }
    if "attach(" not in code:
        names["attachment"] = tinydfa.attach(model, points=["layers.*"])
    exec(code, names)


@pytest.mark.parametrize("code", blocks())
def test_a_code_block_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    *first, rest = code.partition("\n\n")
    ways = [line for line in rest.splitlines() if line.startswith("attach(")]
    if ways and ways == rest.splitlines():  # one way or the other: a model is attached once
        for way in ways:
            run("".join([*first, way]))
    else:
        run(code)


def test_there_are_code_blocks_and_they_are_of_guides_and_readmes():
    pages = {block.id.partition(":")[0] for block in blocks()}
    assert {"README.md", "tinydfa/README.md", "docs/how-it-works.md", "docs/own-model.md"} <= pages


def headings(page: Path) -> set[str]:
    """The anchors of a page: of its headings, as they are made of them, and those that are written."""
    text = page.read_text(encoding="utf-8")
    made = {
        re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-")
        for line in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    }
    return made | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_are_there(page: str):
    made_by_the_site = ("rules/", "api.md#")
    path = ROOT / page
    for target, anchor in LINK.findall(re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)):
        if f"{target}#{anchor}".startswith(made_by_the_site):
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{page} links to {target}"
        if anchor and file.suffix == ".md":
            assert anchor in headings(file), f"{page} links to {target}#{anchor}"


@pytest.mark.parametrize(("page", "most"), [("README.md", 150), *((f"{task}/README.md", 100) for task in TASKS)])
def test_a_readme_is_no_longer_than_a_reader_stays(page: str, most: int):
    assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= most


def tables_of(task: str) -> list[str]:
    return [table.name for table in importlib.import_module(f"{task}.tables").TABLES if table.cells]


@pytest.mark.parametrize("task", TASKS)
def test_every_table_of_a_task_stands_in_its_results(task: str):
    text = (ROOT / task / "RESULTS.md").read_text(encoding="utf-8")
    assert [name for name in tables_of(task) if f"<!-- results:{name} -->" not in text] == []


def test_the_readme_of_the_library_says_what_a_layer_receives_by_every_rule():
    text = (ROOT / "tinydfa" / "README.md").read_text(encoding="utf-8")
    table = text.partition("## What a hidden layer receives")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \| .{15,} \|$", table, flags=re.MULTILINE) == list(tinydfa.rules.registered())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Pages of the site, built as `make docs` does."""
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("needs requirements-docs.txt")
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return lambda name: (folder / name).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_site_has_a_page_a_rule_with_its_source_and_scores(site: Callable[[str], str]):
    for name in tinydfa.rules.registered():
        assert f"--method {name}" in site(f"rules/{name}.html")
    page = site("rules/dfa.html")
    assert "https://arxiv.org/abs/1609.01596" in page
    assert "../graphs/RESULTS.html#table3" in page
    assert "tinydfa.measure_alignment" in site("api.html")


@pytest.mark.slow
def test_a_page_of_the_site_loads_nothing_from_elsewhere(site: Callable[[str], str]):
    for name in ("index.html", "api.html", "rules/dfa.html", "graphs/index.html"):
        loads = re.findall(r'<(?:script|link|img|iframe)[^>]*?(?:src|href)="([^"]+)"', site(name))
        assert loads
        assert not [target for target in loads if target.startswith(("http:", "https:", "//"))]
