"""The `hfc` command, through typer's runner."""

import asyncio
import gc
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import papermill
import pytest
import torch
from typer.testing import CliRunner

import hfclib
from hfclib._files import data_folder, locked
from hfclib.cli import app, parse_seeds
from hfclib.data import DataError, DataSet
from hfclib.paper.execute import output_name
from hfclib.paper.names import CHAPTER_PLACES, PRESETS, TRAINED
from hfclib.paper.presets import fig4_recipes
from hfclib.paper.registry import CHAPTERS, RECIPES
from hfclib.runs.store import RunError, load
from hfclib.runs.sweep import Job, SweepReport, local_engine
from hfclib.training.checkpoint import CheckpointError, save_checkpoint
from hfclib.training.loop import Progress, TrainingError, make_optimizer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hfc(monkeypatch):
    """Run `hfc` with these words; result.output has both streams."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_help_and_version(hfc):
    overview = hfc("--help")
    assert overview.exit_code == 0
    for command in ("data", "train", "sweep", "runs", "run"):
        assert command in overview.output
        assert hfc(command, "--help").exit_code == 0
    said = " ".join(hfc("train", "--help").output.split())
    words = [*RECIPES, *PRESETS, "--seed", "--variant", "--store", "--retrain", "--threads"]
    assert [word for word in words if word not in said] == []
    assert "train" in hfc().output
    assert hfc("--version").output == f"hfc {hfclib.__version__}\n"


def test_unknown_words_are_usage_errors(hfc, no_training):
    for words in (["fly"], ["train"], ["train", "fig4", "--amp"], ["train", "fig4", "--seed", "one"]):
        assert hfc(*words).exit_code == 2, words
    for words in (["train", "fig4", "--seed", "-1"], ["sweep", "fig4", "--workers", "0"]):
        result = hfc(*words)
        assert result.exit_code == 2
        assert f"Invalid value for '{words[2]}'" in result.output


def test_names_are_those_of_the_registry():
    assert {name: chapter.name for name, chapter in CHAPTERS.items()} == {name: name for name in CHAPTER_PLACES}
    assert tuple(RECIPES) == TRAINED


NO_REPORT = str(ROOT / "pyproject.toml")
SLOW_IMPORTS = ("torch", "pandas", "matplotlib", "scipy", "numpy", "papermill")


REFUSED_AT_ONCE = [  # and help; words and status
    (["--help"], 0),
    (["train", "fig4", "--preset", "huge"], 1),
    (["sweep", "fig4", "--seeds", "0-x"], 1),
    (["run", "fig5"], 1),
    (["report", "laptop-vanilla-0", "--data", "cifar10-test", "--fail-if", "hfc@4 > 40"], 2),
    (["report", "laptop-vanilla-0", "--data", "cifar10-test", "--radii", "4,4"], 2),
    (["report", "laptop-vanilla-0", "--data", "nowhere"], 2),
    (["report", "laptop-vanila-0", "--data", "cifar10-test"], 2),
    (["report", "torchvision:resnet51", "--data", "cifar10-test"], 2),
    (["report", "timm:vit_tiny", "--data", "cifar10-test"], 2),
    (["report", "nowhere:build", "--data", "cifar10-test"], 2),
    (["report", "laptop-vanilla-0", "--data", "cifar10-test", "--compare", NO_REPORT], 2),
    (["compare", NO_REPORT, NO_REPORT], 2),
]


def test_help_and_refusals_take_no_heavy_import():
    """One process for all: what one imports shows in its own line first."""
    code = f"""
import json, sys, time
from typer.testing import CliRunner
from hfclib.cli import app
for words, _ in {REFUSED_AT_ONCE}:
    status = CliRunner().invoke(app, words).exit_code
    heavy = [name for name in {SLOW_IMPORTS} if name in sys.modules]
    print(json.dumps([words, status, heavy, time.process_time()]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    spent = 0
    for (words, status), line in zip(REFUSED_AT_ONCE, done.stdout.splitlines(), strict=True):
        *found, until = json.loads(line)
        assert found == [words, status, []]
        assert until - spent < 1.5, words  # seconds; the first with the start of Python
        spent = until


def test_train_trains_what_is_missing_and_then_loads_it(hfc, measured_at, request, tmp_path):
    measured_at(4)
    variants = "vanilla", "batchnorm"
    words = ["train", "fig4", "--preset", "smoke", "--store", tmp_path / "store"]
    words += [word for name in variants for word in ("--variant", name)]
    first = hfc(*words)
    assert first.exit_code == 0, first.output
    assert "2 runs to train on" in first.output
    for name in variants:
        folder = tmp_path / "store" / fig4_recipes("smoke")[name].run_name(0)
        accuracy = load(folder).test_accuracy()
        assert f"smoke-{name}, seed 0: trained, test accuracy {accuracy:.3f}, {folder}" in first.output
    request.getfixturevalue("no_training")
    again = hfc(*words)
    assert again.exit_code == 0, again.output
    assert again.output.count(": stored, test accuracy") == 2
    assert "to train on" not in again.output


@pytest.fixture
def asked(train_by):
    """The (recipe name, seed, store) that the command would train."""
    asked = []

    class Trained:
        def __init__(self, recipe, seed):
            self.recipe, self.seed, self.path = recipe, seed, "folder"

        def test_accuracy(self):
            return 0.5

    def train(recipe, *, seed, store, progress):
        asked.append((recipe.name, seed, store))
        return Trained(recipe, seed)

    train_by(train)
    return asked


def test_what_is_trained(hfc, asked, tmp_path):
    for options, expected in [
        ([], [(f"smoke-{variant}", 0) for variant in fig4_recipes("smoke")]),
        (["--variant", "mixup"], [("smoke-mixup", 0)]),
        (["--variant", "mixup", "--variant", "vanilla"], [("smoke-vanilla", 0), ("smoke-mixup", 0)]),
        (["--variant", "mixup", "--seed", "3", "--seed", "1"], [("smoke-mixup", 3), ("smoke-mixup", 1)]),
        (["--variant", "mixup", "--seed", "2", "--seed", "2"], [("smoke-mixup", 2)]),
    ]:
        asked.clear()
        result = hfc("train", "fig4", "--preset", "smoke", "--store", tmp_path / "store", *options)
        assert result.exit_code == 0, result.output
        assert asked == [(*job, tmp_path / "store") for job in expected]
        assert re.search(rf"{len(expected)} runs? to train on .*about {len(expected)}.0 minutes", result.output)


def test_a_store_under_the_users_home(hfc, asked, user_home):
    assert hfc("train", "fig4", "--preset", "smoke", "--store=~/runs").exit_code == 0
    assert {store for *_, store in asked} == {user_home / "runs"}
    (user_home / "runs").mkdir(exist_ok=True)
    assert hfc("runs", "--store=~/runs").exit_code == 0


def test_bad_choices_train_nothing_and_say_what_was_meant(hfc, no_training, tmp_path):
    variants = ", ".join(fig4_recipes("smoke"))
    for command, *words, message in [
        ("train", "stated", "expected preset, one of narrow, paper: stated has no recipes at laptop"),
        ("train", "fig44", f"expected chapter, one of {', '.join(RECIPES)}, got 'fig44'; did you mean fig4?"),
        ("train", "fig4", "--preset", "huge", f"expected preset, one of {', '.join(PRESETS)}, got 'huge'"),
        ("train", "fig4", "--preset", "papers", "did you mean paper?"),
        (
            "train",
            "fig4",
            "--variant",
            "batchnrom",
            f"expected variant, one of {variants}, got 'batchnrom'; did you mean",
        ),
        ("train", "fig4", "--variant", "mixup", "--variant", "x", "got 'x'"),
        ("sweep", "fig44", "did you mean fig4?"),
        ("sweep", "fig4", "--preset", "papers", "did you mean paper?"),
        ("sweep", "fig4", "--variant", "vanila", "did you mean vanilla?"),
        ("sweep", "fig4", "--seeds", "0-x", "expected seeds such as 3, 0-9 or 0,2,5, got '0-x'"),
        ("sweep", "fig4", "--engine", "slurm", "expected engine, one of local, ray, got 'slurm'"),
        ("sweep", "fig4", "--address", "auto", "expected --address with --engine ray"),
        ("sweep", "fig4", "--engine", "ray", "--threads", "2", "expected --threads with the local engine"),
    ]:
        result = hfc(command, *words, "--store", tmp_path / "store")
        assert result.exit_code == 1, words
        assert message in result.output
        assert result.output.startswith("Error: ")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("error", [DataError, TrainingError, CheckpointError, RunError, OSError])
def test_a_failure_is_told_in_one_line(hfc, train_by, tmp_path, error):
    def failing(*args, **options):
        raise error("what went wrong")

    train_by(failing)
    result = hfc("train", "fig4", "--preset", "smoke", "--store", tmp_path)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)  # not the error itself, with a traceback
    announced, said = sorted(result.output.splitlines())
    assert "runs to train" in announced
    assert said == "Error: what went wrong"


def test_a_store_that_is_no_folder_is_told_before_any_work(hfc, no_training, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = hfc("train", "fig4", "--preset", "smoke", "--store", tmp_path / "file" / "x")
    assert result.exit_code == 1
    assert "can't be used as a folder (Not a directory): choose another (of runs by --store" in result.output
    assert "to train on" not in result.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_says_that_it_goes_on(hfc, train_by, tmp_path, number):
    train_by(lambda *args, **options: signal.raise_signal(number))
    before = signal.getsignal(signal.SIGTERM)
    # A shell that starts the tests in the background has them ignore a Ctrl-C.
    of_the_shell = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = hfc("train", "fig4", "--preset", "smoke", "--store", tmp_path)
    finally:
        signal.signal(signal.SIGINT, of_the_shell)
    assert result.exit_code == 130
    assert "the same command goes on from the last checkpoint" in result.output
    assert signal.getsignal(signal.SIGTERM) is before


def test_threads_of_a_training(hfc, asked, tmp_path):
    before = torch.get_num_threads()
    try:
        words = ["train", "fig4", "--preset", "smoke", "--variant", "mixup", "--store", tmp_path]
        assert hfc(*words).exit_code == 0
        assert torch.get_num_threads() == before
        assert hfc(*words, "--threads", 2).exit_code == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_damaged_stored_run_stops_before_any_training(hfc, no_training, tmp_path):
    folder = tmp_path / fig4_recipes("smoke")["mixup"].run_name(0)
    folder.mkdir()
    result = hfc("train", "fig4", "--preset", "smoke", "--store", tmp_path)
    assert result.exit_code == 1
    assert str(folder) in result.output
    assert list(tmp_path.glob("smoke-*")) == [folder]


# ---- hfc data


def test_data_says_where_each_part_came_from(hfc, monkeypatch):
    monkeypatch.setattr(DataSet, "fetch", lambda self: {"train images": f"a shelf with {self.title}"})
    for words, title in (
        ((), "CIFAR-10"),
        (("--set", "mnist"), "MNIST"),
        (("--set", "fashion-mnist"), "Fashion-MNIST"),
    ):
        result = hfc("data", *words)
        assert result.exit_code == 0, result.output
        assert result.output.splitlines() == [f"train images: a shelf with {title}"]
    result = hfc("data", "--set", "mnits")
    assert result.exit_code == 1
    assert "expected set, one of cifar10, mnist, fashion-mnist, got 'mnits'; did you mean mnist?" in result.output


# ---- hfc sweep


@pytest.fixture
def swept(monkeypatch):
    """What the sweep was asked for; it comes to `swept["report"]`."""
    asked = {"report": SweepReport()}

    def sweep(recipes, seeds, **options):
        asked.update(options, recipes=[recipe.name for recipe in recipes.values()], seeds=seeds)
        logging.getLogger("hfclib.runs.sweep").info("a line")
        return asked["report"]

    monkeypatch.setattr("hfclib.runs.sweep.sweep", sweep)
    return asked


def test_sweep_hands_its_options_on(hfc, swept, tmp_path):
    words = ["--seeds", "0-2", "--workers", "3", "--store", tmp_path, "--variant", "mixup", "--retrain"]
    result = hfc("sweep", "fig4", "--preset", "smoke", *words)
    assert result.exit_code == 0, result.output
    assert (swept["recipes"], swept["seeds"]) == (["smoke-mixup"], [0, 1, 2])
    assert (swept["workers"], swept["store"], swept["retrain"]) == (3, tmp_path, True)
    assert swept["engine"].func is local_engine


def test_threads_of_a_sweep(hfc, swept, monkeypatch):
    for value, words, expected in [("3", [], 3), ("3", ["--threads", 2], 2), ("", [], None)]:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert hfc("sweep", "fig4", *words).exit_code == 0
        assert swept["engine"].keywords == {"threads": expected}


def test_sweep_on_ray_gets_the_address(hfc, swept, monkeypatch):
    monkeypatch.setattr("hfclib.runs.ray.ray_engine", lambda address: f"ray at {address}")
    assert hfc("sweep", "fig1", "--engine", "ray", "--address", "auto").exit_code == 0
    assert swept["engine"] == "ray at auto"
    assert hfc("sweep", "fig1", "--engine", "ray").exit_code == 0
    assert swept["engine"] == "ray at None"


def test_a_sweep_with_failures_ends_with_them_and_status_1(hfc, swept):
    swept["report"].failures[Job(fig4_recipes("smoke")["mixup"], 4)] = "the loss is nan"
    result = hfc("sweep", "fig4", "--preset", "smoke")
    assert result.exit_code == 1
    assert result.output == "a line\nError: smoke-mixup, seed 4: the loss is nan\n"


def test_a_stopped_sweep_says_what_is_kept(hfc, swept):
    swept["report"].stopped = True
    result = hfc("sweep", "fig4", "--preset", "smoke")
    assert result.exit_code == 130
    assert "what has ended is stored" in result.output


def test_seeds_as_people_write_them():
    for text, expected in [
        ("3", [3]),
        ("0-3", [0, 1, 2, 3]),
        ("0,2,5", [0, 2, 5]),
        ("4-5, 0,4", [4, 5, 0]),
        ("7-7", [7]),
        (" 1 - 2 ", [1, 2]),
        ("0-999", list(range(1000))),
    ]:
        assert parse_seeds(text) == expected
    for text in ["", "-1", "3-1", "a", "1.5", "0;1", "1,,2", "0-", "1-2-3", "nan", "0-1000", "1e3", "9" * 30, "٣"]:
        with pytest.raises(ValueError, match="seeds such as"):
            parse_seeds(text)


# ---- hfc runs


@pytest.fixture
def store(tmp_path):
    """A store with a sound run, a damaged one, an unfinished one, and what is no run."""
    store = tmp_path / "store"
    names = [fig4_recipes("laptop")[variant].run_name(0) for variant in ("vanilla", "mixup")]
    for name in names:
        shutil.copytree(data_folder() / "runs" / name, store / name)
    (store / names[1] / "final.csv").unlink()
    partial = store / f"{fig4_recipes('smoke')['dropout'].run_name(7)}.partial" / "checkpoint.safetensors"
    partial.parent.mkdir()
    model = fig4_recipes("smoke")["dropout"].build()
    save_checkpoint(partial, model, *make_optimizer(model, fig4_recipes("smoke")["dropout"], 9), Progress(epoch=1))
    (store / "note.txt").write_text("no run")
    return store


def test_runs_lists_every_run_with_its_state(hfc, store):
    result = hfc("runs", "--store", store)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[0] == ["recipe", "seed", "state", "accuracy", "minutes", "MB"]
    assert lines[1][:3] == ["laptop-mixup", "0", "damaged"]
    assert lines[2] == ["laptop-vanilla", "0", "stored", "0.793", "12.4", "1.44"]
    assert lines[3][:6] == ["smoke-dropout", "7", "unfinished,", "1", "epoch", "done"]
    assert len(lines) == 4


def test_runs_are_listed_as_json(hfc, store):
    damaged, stored, unfinished = json.loads(hfc("runs", "--store", store, "--json").stdout)
    assert (stored["recipe"], stored["seed"], stored["state"], stored["problem"]) == (
        "laptop-vanilla",
        0,
        "stored",
        None,
    )
    assert f"{stored['accuracy']:.3f} {stored['bytes'] / 1e6:.2f}" == "0.793 1.44"
    assert Path(stored["path"]).parent == store
    assert (damaged["state"], damaged["accuracy"]) == ("damaged", None)
    assert "final.csv can't be read" in damaged["problem"]
    assert unfinished["state"].startswith("unfinished, 1 epoch done")
    assert hfc("runs", "verify", "--json").exit_code == 1


def test_runs_says_which_one_is_being_trained(hfc, store):
    with locked(store / f"{fig4_recipes('smoke')['dropout'].run_name(7)}.lock", say=pytest.fail):
        assert "training, 1 epoch done" in hfc("runs", "--store", store).output


def test_runs_lists_the_published_ones_and_your_own(hfc, own_home, store):
    (own_home / "runs").parent.mkdir(exist_ok=True)
    store.rename(own_home / "runs")
    said = hfc("runs").output
    assert "laptop-batchnorm" in said
    assert "smoke-dropout" in said


def test_verify_names_the_damaged_file_and_fails(hfc, store):
    for words in (["runs", "verify", "--store", store], ["runs", "--store", store, "verify"]):
        result = hfc(*words)
        assert result.exit_code == 1
        assert "final.csv can't be read" in result.output
        assert "3 runs, 1 damaged" in result.output
    checkpoint = next(store.glob("*.partial")) / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    result = hfc("runs", "verify", "--store", store)
    assert f"the checkpoint {checkpoint} is damaged" in result.output
    assert "3 runs, 2 damaged" in result.output


def test_a_folder_that_is_not_there_is_no_store_without_damage(hfc, tmp_path):
    for words in (["runs"], ["runs", "verify"]):
        result = hfc(*words, "--store", tmp_path / "typo")
        assert result.exit_code == 2
        assert "'--store'" in result.output
        assert "does not exist" in result.output


def test_verify_accepts_sound_runs(hfc, store):
    shutil.rmtree(store / fig4_recipes("laptop")["mixup"].run_name(0))
    result = hfc("runs", "verify", "--store", store)
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "2 runs, 0 damaged"


# ---- hfc run


def test_run_refuses_before_it_starts(hfc, notebook_run, tmp_path):
    notebook_run(lambda: pytest.fail("the notebook ran"))
    for *words, message in [
        ("fig44", f"expected chapter, one of {', '.join(CHAPTERS)}, got 'fig44'; did you mean fig4?"),
        ("fig4", "-p", "radius", "expected -p NAME VALUE"),
        ("fig4", "radius", "8", "expected -p NAME VALUE"),
        ("fig4", "-p", "radius", "[4", "expected values in YAML"),
        ("fig4", "-y", "radius", "expected -y 'NAME: VALUE', got 'radius'"),
        ("fig4", "-p", "raduis", "8", "unknown parameter raduis = 8; did you mean radius?"),
        ("fig4", "-y", "raduis: [4, 8]", "unknown parameter raduis = [4, 8]; did you mean radius?"),
        ("fig4", "-p", "radius", "99", "parameter radius = 99: expected"),
        ("fig4", "-p", "radius", "020", "-p", "seeds", "1e-3", "parameter seeds = 0.001: expected"),
        ("fig4", "-p", "radius", "8", "-y", "radius: 4", "expected each parameter once, got radius again"),
        ("fig4", "-p", "radius", "2020-01-01", "parameter radius = datetime.date(2020, 1, 1): expected"),
        ("fig4", "-p", "_x", "4", "unknown parameter _x = 4"),
        ("fig4", "-y", "8: 8", "unknown parameter 8 = 8"),
        ("fig4", "-p", "seeds", "4321", "expected seeds whose runs are stored"),
    ]:
        result = hfc("run", *words, "--output", tmp_path / "out.ipynb")
        assert result.exit_code == 1, words
        assert f"Error: {message}" in result.output or message in result.output
    (tmp_path / "notes.txt").write_text("mine")
    for output in (
        ROOT / "notebooks" / "fig4.ipynb",
        ROOT / "notebooks" / "fig2.ipynb",
        tmp_path,
        tmp_path / "notes.txt",
    ):
        result = hfc("run", "fig4", "--output", output)
        assert "expected an output that is no notebook of the book, folder or other file" in result.output
    (tmp_path / "notes.txt").unlink()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def notebook_run(monkeypatch, tmp_path):
    """A folder to run notebooks in, and papermill as a function that writes half a notebook and ends with this call."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = []

    def install(ending):
        def execute_notebook(notebook, output, values, **options):
            output.write_text("half a notebook")
            given.append(values)
            ending()
            output.write_text("a whole notebook")

        monkeypatch.setattr("papermill.execute_notebook", execute_notebook)
        return given

    return install


def files(folder):
    return {path.name: path.read_text() for path in folder.glob("*.ipynb")}


def test_run_hands_values_on_and_puts_them_into_the_name(hfc, notebook_run, tmp_path):
    given = notebook_run(lambda: None)
    result = hfc("run", "fig4", "-p", "radius", "8", "--threads", "2")
    assert result.exit_code == 0, result.output
    assert re.search(r"^fig4: \d+ cells; what is not stored", result.output)
    assert result.output.endswith("wrote fig4-radius=8.ipynb\n")
    assert os.environ["OMP_NUM_THREADS"] == "2"
    assert hfc("run", "fig4", "-y", "radius: [4, 7]", "-p", "feed", "max").exit_code == 0
    assert hfc("run", "fig4", "-o", "mine.ipynb").exit_code == 0
    assert given == [{"radius": 8}, {"radius": [4, 7], "feed": "max"}, {}]
    assert set(files(tmp_path)) == {"fig4-radius=8.ipynb", "fig4-feed=max-radius=4,7.ipynb", "mine.ipynb"}
    assert set(files(tmp_path).values()) == {"a whole notebook"}


def test_a_relative_home_is_the_same_for_a_notebook(hfc, notebook_run, monkeypatch, tmp_path):
    homes = []
    notebook_run(lambda: homes.append(os.environ["HFCLIB_HOME"]))
    monkeypatch.setenv("HFCLIB_HOME", "mine")
    assert hfc("run", "fig4").exit_code == 0
    assert homes == [str(tmp_path / "mine")]


def test_a_stopped_notebook_does_not_tell_that_its_kernel_died(hfc, notebook_run, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", False)
    left = [asyncio.Future(loop=asyncio.new_event_loop())]  # as nbclient leaves its task when its loop is interrupted

    def interrupted():
        left[0].set_exception(RuntimeError("Kernel died"))
        raise KeyboardInterrupt

    notebook_run(interrupted)
    result = hfc("run", "fig4")
    left.pop().get_loop().close()
    gc.collect()
    assert (result.exit_code, files(tmp_path)) == (130, {})
    assert "never retrieved" not in caplog.text


def test_names_of_executed_notebooks():
    assert output_name("fig4", {}) == "fig4-defaults.ipynb"
    assert output_name("fig4", {"b": 2, "a": True}) == "fig4-a=true-b=2.ipynb"
    names = {output_name("fig2", {"indices": list(range(start, start + 40)), "x": "../ '"}) for start in (0, 0, 1)}
    assert len(names) == 2
    assert all(re.fullmatch(r"fig2-[\w.,=+-]{50}-[0-9a-f]{8}\.ipynb", name) for name in names)


def test_a_failed_notebook_replaces_no_good_one(hfc, notebook_run, tmp_path):
    def failing():
        raise papermill.PapermillExecutionError(3, 2, "1 / 0", "ZeroDivisionError", "division by zero", [])

    (tmp_path / "fig4-radius=8.ipynb").write_text("a good notebook")
    notebook_run(failing)
    result = hfc("run", "fig4", "-p", "radius", "8")
    assert result.exit_code == 1
    said = "Error: ZeroDivisionError: division by zero; the notebook up to there is fig4-radius=8.failed.ipynb"
    assert said in result.output
    assert files(tmp_path) == {
        "fig4-radius=8.ipynb": "a good notebook",
        "fig4-radius=8.failed.ipynb": "half a notebook",
    }


def test_a_stopped_notebook_leaves_nothing(hfc, notebook_run, tmp_path):
    notebook_run(lambda: signal.raise_signal(signal.SIGTERM))  # handled as a Ctrl-C is
    result = hfc("run", "fig4", "-p", "radius", "8")
    assert result.exit_code == 130
    assert "stopped; nothing was written" in result.output
    assert files(tmp_path) == {}


def test_a_missing_package_is_named_with_the_extra_that_has_it():
    code = "import sys; sys.modules['papermill'] = None; from hfclib.cli import app; app(['run', 'fig4'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "papermill" in done.stderr.splitlines()[-1]
    assert "pip install 'hfclib[notebooks]'" in done.stderr
