"""The notebooks under papermill, as a reader starts them. `pytest --nbval` compares their stored outputs as well."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import papermill
import pytest

from hfclib.paper.fig4 import FIG4
from hfclib.paper.presets import PUBLISHED_SEEDS, fig4_recipes

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def papermill_command(*words, cwd=ROOT, **options):
    """Run papermill as a command of its own, in another process."""
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "papermill", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=quiet, capture_output=True, text=True, check=False, **options)


def printed(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return json.dumps([output.get("data", output.get("text")) for output in outputs])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_trains_and_runs_at_smoke(notebook, tmp_path):
    known = papermill.inspect_notebook(str(notebook))
    (seeds,) = {"seed", "seeds"} & set(known)
    smoke = ["-p", "preset", "smoke", "-p", "retrain", True, "-p", seeds, 0]
    if "n_images" in known:  # attacks are not made smaller by the preset
        smoke += ["-p", "n_images", 20, "-p", "steps", 2, "-p", "rho", 0.5, "-p", "eps", 0.03]
    done = papermill_command(notebook, tmp_path / "out.ipynb", *smoke)
    assert done.returncode == 0, done.stderr
    assert "to train on" in printed(tmp_path / "out.ipynb")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_seed_whose_runs_are_not_stored_is_refused_at_once_by_name(notebook, own_home, tmp_path):
    (seeds,) = {"seed", "seeds"} & set(papermill.inspect_notebook(str(notebook)))
    start = time.monotonic()
    done = papermill_command(notebook, tmp_path / "out.ipynb", "-p", seeds, 4321)
    assert done.returncode != 0
    assert "ValueError" in done.stderr
    assert f"parameter {seeds} = 4321: expected seeds whose runs are stored" in done.stderr
    assert "not stored at preset laptop: laptop-" in done.stderr
    assert "to train on" not in printed(tmp_path / "out.ipynb")
    assert not own_home.exists()
    assert time.monotonic() - start < 30


def test_the_default_seeds_are_those_published():
    default = papermill.inspect_notebook(str(ROOT / "notebooks/fig4.ipynb"))["seeds"]["default"]
    assert tuple(json.loads(default)) == PUBLISHED_SEEDS
    wanted = [
        recipe.run_name(seed)
        for variant, recipe in fig4_recipes("laptop").items()
        if variant not in FIG4.optional
        for seed in PUBLISHED_SEEDS
    ]
    assert not [name for name in wanted if not (ROOT / "data/runs" / name / "run.json").exists()]


@pytest.mark.parametrize("folder", ["", "notebooks"])
def test_one_radius_from_published_runs_from_either_folder(folder, tmp_path):
    start = time.monotonic()
    name = "fig4.ipynb" if folder else "notebooks/fig4.ipynb"
    done = papermill_command(name, tmp_path / "out.ipynb", "-p", "radius", 7, cwd=ROOT / folder)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 60
    assert "<td>H7 (raw, running)</td>" in printed(tmp_path / "out.ipynb")


def test_without_an_output_path_the_notebook_goes_to_standard_output(tmp_path):
    done = papermill_command("notebooks/fig4.ipynb", "-p", "radius", 8)
    assert done.returncode == 0, done.stderr
    (tmp_path / "out.ipynb").write_text(done.stdout)
    assert "<td>H8</td>" in printed(tmp_path / "out.ipynb")
    assert "<td>H4</td>" not in printed(tmp_path / "out.ipynb")


@pytest.mark.parametrize(
    ("name", "value"), [("radius", "0"), ("radius", "-3"), ("radius", "99"), ("radius", "abc"), ("raduis", "8")]
)
def test_a_bad_parameter_stops_the_notebook_at_once(name, value, tmp_path):
    start = time.monotonic()
    done = papermill_command("notebooks/fig4.ipynb", tmp_path / "out.ipynb", "-p", name, value)
    assert done.returncode != 0
    assert "ValueError" in done.stderr
    assert name in done.stderr
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_backslash_was_eaten_on_the_way_into_a_notebook(notebook):
    text = "".join("".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"])
    assert not [character for character in text if ord(character) < 32 and character != "\n"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_holds_no_code_of_its_own(notebook):
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    lines = [line for cell in cells for line in "".join(cell["source"]).splitlines() if line.strip()]
    assert len(lines) <= 60
    assert not [line for line in lines if line.lstrip().startswith(("def ", "class ", "%", "!")) or "sys.path" in line]
    assert all(cell["execution_count"] for cell in cells), "store the outputs: make notebooks"
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
