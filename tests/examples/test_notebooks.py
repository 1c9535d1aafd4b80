"""The notebooks say what the examples say, and run from their first cell to the last."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbformat", reason="nbformat makes the notebooks, and is not installed")
pytest.importorskip("nbclient", reason="nbclient runs the notebooks, and is not installed")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
print(nbformat.writes(notebook))
"""


def make():
    spec = importlib.util.spec_from_file_location("make_notebooks", ROOT / "notebooks" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebooks_are_made_of_the_examples():
    made = make()
    assert sorted(made.TITLES) == NOTEBOOKS
    for name in NOTEBOOKS:
        path = ROOT / "notebooks" / f"{name}.ipynb"
        assert path.read_text(encoding="utf-8") == made.notebook(name), "run python notebooks/make.py"


def code_of(name: str) -> str:
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_statement_of_an_example_is_lost(name):
    words = re.sub(r"\s+", " ", (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8"))
    _, _, program = words.split('"""', 2)
    assert re.sub(r"\s+", " ", code_of(name)) == program.replace('if __name__ == "__main__": main()', "main()").strip()


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_its_loss_falls(name, tmp_path):
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    folders = {"IPYTHONDIR": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    environment = os.environ | folders | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", EXECUTE, str(ROOT / "notebooks" / f"{name}.ipynb")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr
    cells = json.loads(done.stdout)["cells"]
    printed = "".join("".join(out["text"]) for cell in cells for out in cell.get("outputs", ()) if "text" in out)
    losses = [float(number) for number in re.findall(r"loss ([0-9.]+)", printed)]
    assert len(losses) >= 6
    assert losses[-1] < 0.8 * losses[0]
