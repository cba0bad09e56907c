"""The notebooks under papermill, as a reader starts them. `pytest --nbval` compares their stored outputs as well."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import get_args

import matplotlib
import papermill
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib.figure import Figure
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from traitlets.config import Config

from hfclib.conditions import PAPER_RADII
from hfclib.paper.chapter import OWN_RUNS
from hfclib.paper.fig4 import FIG4
from hfclib.paper.presets import PUBLISHED_SEEDS, fig4_recipes
from hfclib.paper.registry import CHAPTERS
from hfclib.paper.verdicts import Verdict
from hfclib.runs.collect import load_or_train
from hfclib.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
NOTEBOOKS = [ROOT / f"notebooks/{name}.ipynb" for name in sorted(CHAPTERS)]
QUICK = {"generalisation"}  # the others take four to ten seconds; `pytest --nbval` runs all in full


def printed(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return json.dumps([output.get("data", output.get("text")) for output in outputs])


@pytest.fixture(scope="session")
def smoke_home(tmp_path_factory, worker_id):
    """A home in which the notebooks share their runs: two chapters that show the same network train it once."""
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "smoke-home"


@pytest.fixture
def shell():
    """IPython in this process: no kernel has to start and to import everything."""
    with matplotlib.rc_context():
        yield InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    InteractiveShell.clear_instance()


# What the notebooks show beside the networks that they cannot do without: one network for each piece of code.
FURTHER = {
    "fig1": ["lfc8", "hfc8max"],
    "fig3": ["adversarial"],
    "fig4": ["adversarial"],
    "labels": ["natural", "shuffled"],
    "batchnorm": ["groupnorm"],
    "datasets": ["vanilla", "batchnorm", "mnist-vanilla"],
    "defense": ["adversarial"],
}


# After two epochs a network may be dead for an image, and then PGD warns. Whether it is depends on the processor.
@pytest.mark.filterwarnings("ignore:the gradient is exactly zero")
@pytest.mark.parametrize(
    "notebook",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem not in QUICK)) for path in NOTEBOOKS],
)
def test_runs_at_smoke(notebook, smoke_home, shell, monkeypatch):
    """Some networks of the chapter are trained, and its notebook is run on them; two notebooks train by themselves."""
    monkeypatch.setenv("HFCLIB_HOME", str(smoke_home))
    if notebook.stem != "tradeoff":  # which asks its networks at every radius
        monkeypatch.setattr(Recipe, "radii", PAPER_RADII)  # most of a smoke run's time goes into measuring bands
    # `pytest --nbval` draws them in full.
    monkeypatch.setattr("hfclib.paper.show.show_figure", Figure.draw_without_rendering)
    source = load_notebook_node(str(notebook))
    known = papermill.inspect_notebook(str(notebook))
    (seeds,) = {"seed", "seeds"} & set(known)
    smoke = {"preset": "smoke", seeds: 0}
    if "n_images" in known:  # attacks are not made smaller by the preset
        smoke |= {"n_images": 20, "steps": 2, "rho": 0.5, "eps": 0.03}
    if "choice" in known:  # of panels, which have twelve networks together
        smoke["choice"] = "architecture"
    if trains := notebook.stem in ("detection", "training"):
        smoke["retrain"] = True
    else:
        chapter = CHAPTERS[notebook.stem]
        shown = {*chapter.required, *FURTHER.get(notebook.stem, ())}
        few = {name: recipe for name, recipe in chapter.recipes("smoke").items() if name in shown}
        list(load_or_train(few, [0], store=smoke_home / "runs", progress=False))
    results = []
    with capture_output() as shown:
        for cell in parameterize_notebook(source, smoke).cells:
            if cell.cell_type == "code":
                done = shell.run_cell(cell.source)
                done.raise_error()
                results.append(getattr(done.result, "data", ""))  # the HTML of tables and of where a figure comes from
    text = "\n".join([shown.stdout, shown.stderr, *results])
    assert ("to train on" in text) == trains
    assert ("4 runs to train on" in text) == (notebook.stem == "training")
    assert OWN_RUNS in text
    assert "Of this notebook&#x27;s runs, with the verdict on the published runs beside it." in text
    assert "smoke" in text


def test_an_unknown_parameter_stops_the_notebook_at_once(own_home, shell):
    cells = parameterize_notebook(load_notebook_node(str(ROOT / "notebooks/fig4.ipynb")), {"raduis": 8}).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    with capture_output() as shown:
        done = [shell.run_cell(source) for source in code[:4]]  # imports, parameters, those given, and the check
    assert [one.success for one in done] == [True, True, True, False]
    with pytest.raises(ValueError, match=re.escape("unknown parameter raduis = 8; did you mean radius?")):
        done[-1].raise_error()
    assert "to train on" not in shown.stdout
    assert not own_home.exists()


def test_the_default_seeds_are_those_published():
    default = papermill.inspect_notebook(str(ROOT / "notebooks/fig4.ipynb"))["seeds"]["default"]
    assert tuple(json.loads(default)) == PUBLISHED_SEEDS
    wanted = [
        recipe.run_name(seed)
        for variant, recipe in fig4_recipes("laptop").items()
        if variant in FIG4.required
        for seed in PUBLISHED_SEEDS
    ]
    assert not [name for name in wanted if not (ROOT / "data/runs" / name / "run.json").exists()]


@pytest.mark.slow
def test_in_its_own_folder_and_without_an_output_path_the_notebook_goes_to_standard_output(tmp_path):
    command = [sys.executable, "-m", "papermill", "fig4.ipynb", "-y", "radius: [7, 8]"]
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=ROOT / "notebooks", env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "out.ipynb").write_text(done.stdout)
    assert "<td>H7 (raw, running)</td>" in printed(tmp_path / "out.ipynb")
    assert "<td>H8</td>" in printed(tmp_path / "out.ipynb")
    assert "<td>H4</td>" not in printed(tmp_path / "out.ipynb")


@pytest.mark.slow
def test_hfc_run_shows_its_progress_and_leaves_nothing_when_it_is_stopped(tmp_path):
    # The command itself: under `python -m` a Ctrl-C within an `exec` of text ends Python by the signal, without a code.
    command = [Path(sys.executable).with_name("hfc"), "run", "fig3", "-p", "rho", "0"]
    # A shell that starts the tests in the background has them, and what they start, ignore a Ctrl-C.
    own = {"preexec_fn": functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, **own) as stopped:
        # Before its first cell, papermill would not close the bar of the progress.
        while stopped.poll() is None and not any(
            '"status": "running"' in path.read_text(encoding="utf-8")
            for path in tmp_path.glob("fig3-rho=0.running-*.ipynb")
        ):
            time.sleep(0.1)
        stopped.send_signal(signal.SIGINT)
        said = stopped.communicate()[1]
    assert stopped.returncode == 130, said
    assert said.endswith("stopped; nothing was written\n")
    assert list(tmp_path.iterdir()) == []
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wrote fig3-rho=0.ipynb\n"
    assert re.match(r"fig3: \d+ cells; what is not stored", done.stderr)
    assert "100%" in done.stderr
    assert not re.search("warning|leaked|Traceback", done.stderr, re.IGNORECASE)
    assert [path.name for path in tmp_path.iterdir()] == ["fig3-rho=0.ipynb"]
    trained, smoothed = re.findall(r"ed: roughness ([0-9.]+) here", printed(tmp_path / "fig3-rho=0.ipynb"))
    assert trained == smoothed  # neighbours of weight 0 change nothing


def test_executed_notebooks_are_not_committed():
    names = ["fig4-radius=8", "fig4-defaults", "out", "fig4-out", "fig4-radius=8.failed"]
    paths = [f"{folder}{name}.ipynb" for folder in ("", "notebooks/", "book/") for name in names]
    kept = [f"notebooks/{notebook.name}" for notebook in NOTEBOOKS]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *paths, *kept], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == paths


def test_no_backslash_was_eaten_on_the_way_into_a_notebook():
    for notebook in NOTEBOOKS:
        text = "".join("".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"])
        assert not [character for character in text if ord(character) < 32 and character != "\n"], notebook.name


def test_a_notebook_is_short_and_holds_no_code_of_its_own():
    for notebook in NOTEBOOKS:
        cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
        lines = [line.lstrip() for cell in cells for line in "".join(cell["source"]).splitlines() if line.strip()]
        assert len(lines) <= 60, notebook.name
        assert not [line for line in lines if line.startswith(("def ", "class ", "%", "!")) or "sys.path" in line]
        assert all(cell["execution_count"] for cell in cells), f"{notebook.name}: store the outputs: make notebooks"
        assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]


def test_every_chapter_answers_first_and_ends_with_what_it_taught():
    parts = [
        "# ",
        "The answer",
        "**How sure**",
        "## What to take away",
        "**What would change our mind**",
        "**Exercise.**",
        ":::{dropdown} Solution",
    ]
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text())["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        title, *_ = text.splitlines()
        places = [text.find(part) for part in parts]
        assert title.endswith("?"), notebook.name
        assert -1 not in places, (notebook.name, parts[places.index(-1)])
        assert places == sorted(places), notebook.name
        box = text.split("::::")[1]
        assert len(box.split()) <= 200, notebook.name  # about one screen of a phone


def test_every_table_and_figure_is_shown():
    """A cell shows its last expression only."""
    for notebook in NOTEBOOKS:
        for cell in json.loads(notebook.read_text())["cells"]:
            calls = re.findall(r"^show_(?:table|figure|provenance)\(", "".join(cell["source"]), re.MULTILINE)
            if cell["cell_type"] == "code":
                assert len([output for output in cell["outputs"] if "data" in output]) >= len(calls), cell["id"]


def test_every_answer_box_says_the_verdicts_of_its_claims():
    """They are those of the table of claims below, whose stored output `pytest --nbval` compares with a new one."""
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text())["cells"]
        outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
        tables = ["".join(data.get("text/html", "")) for data in outputs]
        (table,) = (html for html in tables if "The claims of this chapter" in html)
        verdicts = "|".join((*get_args(Verdict), "run missing"))
        counted = Counter(re.findall(f"<td>({verdicts})</td>", table))
        assert counted.total() == len(CHAPTERS[notebook.stem].claims), notebook.name
        said = re.search(r"\*\*Verdicts\*\*: ([^.]+)\.", "".join(cells[0]["source"]))
        assert said, notebook.name
        assert {verdict: int(count) for count, verdict in (one.split(" ", 1) for one in said[1].split(", "))} == counted
