"""The notebooks under papermill, as a reader starts them. `pytest --nbval` compares their stored outputs as well."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import papermill
import pytest

from hfclib.paper.fig4 import FIG4
from hfclib.paper.presets import PUBLISHED_SEEDS, fig4_recipes
from hfclib.paper.registry import CHAPTERS
from hfclib.paper.scoreboard import published_scoreboard
from hfclib.runs.collect import load_or_train

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def papermill_command(*words, cwd=ROOT):
    """Run papermill as a command of its own, in another process."""
    command = [sys.executable, "-m", "papermill", *map(str, words)]
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, cwd=cwd, env=quiet, capture_output=True, text=True, check=False)


def printed(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return json.dumps([output.get("data", output.get("text")) for output in outputs])


@pytest.fixture(scope="session")
def smoke_home(tmp_path_factory, worker_id):
    """A home in which the notebooks share their runs: two chapters that show the same network train it once."""
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "smoke-home"


def run_at_smoke(notebook, tmp_path, home):
    """Most networks of the chapter are trained, and its notebook is run on them; two notebooks train by themselves."""
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
        # Left out: what takes no code of its own, that is bands at another radius, the second data set of grey images,
        # another loudness, labels without BatchNorm, and in other chapters the further networks of Fig. 1, 3 and 4.
        further = ["louder2", "batchnorm_louder2", "natural_plain", "shuffled_plain", "mnist-lfc8max"]
        if notebook.stem != "fig1":
            further += ["lfc8max", "hfc8max"]
        if notebook.stem not in ("fig3", "fig4"):
            further += ["dropout", "mixup", "adversarial_batchnorm"]
        few = {
            variant: recipe
            for variant, recipe in CHAPTERS[notebook.stem].recipes("smoke").items()
            if recipe.train_radius in (0, 8) and recipe.data != "fashion-mnist" and variant not in further
        }
        list(load_or_train(few, [0], store=home / "runs", progress=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFCLIB_HOME", str(home))
        papermill.execute_notebook(notebook, tmp_path / "out.ipynb", smoke, cwd=ROOT, progress_bar=False)
    shown = printed(tmp_path / "out.ipynb")
    assert ("to train on" in shown) == trains
    assert ("4 runs to train on" in shown) == (notebook.stem == "training")
    assert "smoke" in shown


# After two epochs a network may be dead for an image, and then PGD warns. Whether it is depends on the processor.
UNTRAINED = pytest.mark.filterwarnings("ignore:the gradient is exactly zero")


@UNTRAINED
class TestHalfOfTheNotebooks:  # `make test` gives a class to one of its two processes
    @pytest.mark.parametrize("notebook", NOTEBOOKS[::2], ids=lambda path: path.stem)
    def test_runs_at_smoke(self, notebook, tmp_path, smoke_home):
        run_at_smoke(notebook, tmp_path, smoke_home)


@UNTRAINED
class TestTheOtherHalf:
    @pytest.mark.parametrize("notebook", NOTEBOOKS[1::2], ids=lambda path: path.stem)
    def test_runs_at_smoke(self, notebook, tmp_path, smoke_home):
        run_at_smoke(notebook, tmp_path, smoke_home)


def test_an_unknown_parameter_stops_the_notebook_at_once(own_home, tmp_path):
    done = papermill_command("notebooks/fig4.ipynb", tmp_path / "out.ipynb", "-p", "raduis", 8)
    assert done.returncode != 0
    assert "ValueError: unknown parameter raduis = 8, did you mean radius?" in done.stderr
    assert "to train on" not in printed(tmp_path / "out.ipynb")
    assert not own_home.exists()


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


def test_in_its_own_folder_and_without_an_output_path_the_notebook_goes_to_standard_output(tmp_path):
    done = papermill_command("fig4.ipynb", "-y", "radius: [7, 8]", cwd=ROOT / "notebooks")
    assert done.returncode == 0, done.stderr
    (tmp_path / "out.ipynb").write_text(done.stdout)
    assert "<td>H7 (raw, running)</td>" in printed(tmp_path / "out.ipynb")
    assert "<td>H8</td>" in printed(tmp_path / "out.ipynb")
    assert "<td>H4</td>" not in printed(tmp_path / "out.ipynb")


def test_hfc_run_shows_its_progress_and_leaves_nothing_when_it_is_stopped(tmp_path):
    command = [sys.executable, "-m", "hfclib.cli", "run", "fig4", "-p", "radius", "8"]
    # A shell that starts the tests in the background has them, and what they start, ignore a Ctrl-C.
    own = {"preexec_fn": functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, **own) as stopped:
        while not list(tmp_path.glob("fig4-radius=8.running-*.ipynb")) and stopped.poll() is None:
            time.sleep(0.1)
        stopped.send_signal(signal.SIGINT)
        said = stopped.communicate()[1]
    assert stopped.returncode == 130, said
    assert said.endswith("stopped; nothing was written\n")
    assert list(tmp_path.iterdir()) == []
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wrote fig4-radius=8.ipynb\n"
    assert "about" in done.stderr
    assert "100%" in done.stderr
    assert not re.search("warning|leaked|Traceback", done.stderr, re.IGNORECASE)
    assert [path.name for path in tmp_path.iterdir()] == ["fig4-radius=8.ipynb"]
    assert "<td>H8</td>" in printed(tmp_path / "fig4-radius=8.ipynb")


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


def test_an_accuracy_that_vanilla_must_reach_is_asked_of_the_published_preset_alone():
    for name in ("fig4", "training"):
        cells = json.loads((ROOT / f"notebooks/{name}.ipynb").read_text())["cells"]
        (asked,) = [line for line in "".join(cells[-1]["source"]).splitlines() if "min() >= 0.75" in line]
        assert asked.startswith('assert settings.preset != "laptop" or '), name


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


def test_every_answer_box_says_the_verdicts_of_its_claims():
    board = published_scoreboard()
    for notebook in NOTEBOOKS:
        box = "".join(json.loads(notebook.read_text())["cells"][0]["source"])
        found = board.loc[board["figure"] == notebook.stem, "verdict"].value_counts()
        said = re.search(r"\*\*Verdicts\*\*: ([^.]+)\.", box)
        assert said, notebook.name
        assert dict(part.split(" ", 1)[::-1] for part in said[1].split(", ")) == found.astype(str).to_dict(), (
            notebook.name
        )
