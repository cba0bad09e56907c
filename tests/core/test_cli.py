"""The `hfc` command, through typer's runner."""

import re
import shutil
import signal

import pytest
from typer.testing import CliRunner

import hfclib.cli
from hfclib._files import data_folder, locked
from hfclib.cli import app
from hfclib.data.cifar import DataError, _Unavailable
from hfclib.paper.presets import fig4_recipes
from hfclib.paper.registry import CHAPTERS, RECIPES
from hfclib.runs import train as job
from hfclib.runs.store import RunError, load
from hfclib.runs.sweep import Job, SweepReport, local_engine
from hfclib.training import loop
from hfclib.training.checkpoint import CheckpointError, save_checkpoint
from hfclib.training.loop import Progress, TrainingError, make_optimizer


@pytest.fixture
def hfc(monkeypatch):
    """Run `hfc` with these words; result.output has both streams."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr("hfclib.runs.collect.train_run", lambda *args, **options: pytest.fail("something was trained"))


@pytest.mark.parametrize("command", ["data", "train", "sweep", "run"])
def test_help(hfc, command):
    overview = hfc("--help")
    assert overview.exit_code == 0
    assert command in overview.output
    detail = hfc(command, "--help")
    assert detail.exit_code == 0
    assert getattr(hfclib.cli, command).__doc__.split(".")[0] in " ".join(detail.output.split())


def test_help_names_the_choices(hfc):
    said = " ".join(hfc("train", "--help").output.split())
    for word in ("fig4", "smoke", "laptop", "paper", "authors", "--seed", "--variant", "--store", "--retrain"):
        assert word in said


def test_no_command_shows_the_help(hfc):
    assert "train" in hfc().output


@pytest.mark.parametrize("words", [["fly"], ["train"], ["train", "fig4", "--amp"], ["train", "fig4", "--seed", "one"]])
def test_unknown_words_are_usage_errors(hfc, no_training, words):
    assert hfc(*words).exit_code == 2


# After so short a training the adversarial variant's network is still flat for some images.
@pytest.mark.filterwarnings("ignore:the gradient is exactly zero")
def test_train_trains_what_is_missing_and_then_loads_it(hfc, monkeypatch, decoded_once, tmp_path):
    for module in (loop, job):  # most of the time of a smoke run goes into measuring bands
        monkeypatch.setattr(module, "RADII", (4,))
    words = ["train", "fig4", "--preset", "smoke", "--store", tmp_path / "store"]
    first = hfc(*words)
    assert first.exit_code == 0, first.output
    assert f"{len(fig4_recipes('smoke'))} runs to train on" in first.output
    for name, recipe in fig4_recipes("smoke").items():
        folder = tmp_path / "store" / recipe.run_name(0)
        accuracy = load(folder).test_accuracy()
        assert f"smoke-{name}, seed 0: trained, test accuracy {accuracy:.3f}, {folder}" in first.output
    monkeypatch.setattr("hfclib.runs.collect.train_run", lambda *args, **options: pytest.fail("trained again"))
    again = hfc(*words)
    assert again.exit_code == 0, again.output
    assert again.output.count(": stored, test accuracy") == len(fig4_recipes("smoke"))
    assert "to train on" not in again.output


@pytest.fixture
def asked(monkeypatch):
    """The (recipe name, seed) that the command would train."""
    asked = []

    class Trained:
        def __init__(self, recipe, seed):
            self.recipe, self.seed, self.path = recipe, seed, "folder"

        def test_accuracy(self):
            return 0.5

    def train(recipe, *, seed, store, progress):
        asked.append((recipe.name, seed))
        return Trained(recipe, seed)

    monkeypatch.setattr("hfclib.runs.collect.train_run", train)
    monkeypatch.setattr("hfclib.runs.collect.estimate_seconds", lambda *args: 60)
    return asked


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [(f"smoke-{variant}", 0) for variant in fig4_recipes("smoke")]),
        (["--variant", "mixup"], [("smoke-mixup", 0)]),
        (["--variant", "mixup", "--variant", "vanilla"], [("smoke-vanilla", 0), ("smoke-mixup", 0)]),
        (["--variant", "mixup", "--seed", "3", "--seed", "1"], [("smoke-mixup", 3), ("smoke-mixup", 1)]),
        (["--variant", "mixup", "--seed", "2", "--seed", "2"], [("smoke-mixup", 2)]),
    ],
)
def test_what_is_trained(hfc, asked, tmp_path, options, expected):
    result = hfc("train", "fig4", "--preset", "smoke", "--store", tmp_path / "store", *options)
    assert result.exit_code == 0, result.output
    assert asked == expected
    assert re.search(rf"{len(expected)} runs? to train on .*about {len(expected)}.0 minutes", result.output)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fig5"], f"Error: expected chapter, one of {', '.join(RECIPES)}, got 'fig5'"),
        (
            ["fig4", "--preset", "huge"],
            "Error: expected preset, one of smoke, laptop, narrow, paper, authors, got 'huge'",
        ),
        (
            ["fig4", "--variant", "batchnrom"],
            f"Error: expected variant, one of {', '.join(fig4_recipes('smoke'))}, got batchnrom",
        ),
        (["fig4", "--variant", "mixup", "--variant", "x"], "got x"),
        (["fig4", "--seed", "-1"], "Error: expected seed, a whole number of at least 0, got [-1]"),
        (["fig4", "--seed", "0", "--seed", "-2"], "Error: expected seed, a whole number of at least 0"),
    ],
)
def test_bad_choices_train_nothing(hfc, no_training, tmp_path, words, message):
    result = hfc("train", *words, "--store", tmp_path / "store")
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("error", [DataError, TrainingError, CheckpointError, RunError])
def test_a_failure_is_told_in_one_line(hfc, monkeypatch, tmp_path, error):
    def failing(*args, **options):
        raise error("what went wrong")

    monkeypatch.setattr("hfclib.runs.collect.train_run", failing)
    monkeypatch.setattr("hfclib.runs.collect.estimate_seconds", lambda *args: 60)
    result = hfc("train", "fig4", "--preset", "smoke", "--store", tmp_path)
    assert result.exit_code == 1
    assert "Error: what went wrong" in result.output
    assert "Traceback" not in result.output


def test_a_damaged_stored_run_stops_before_any_training(hfc, no_training, tmp_path):
    folder = tmp_path / fig4_recipes("smoke")["mixup"].run_name(0)
    folder.mkdir()
    result = hfc("train", "fig4", "--preset", "smoke", "--store", tmp_path)
    assert result.exit_code == 1
    assert str(folder) in result.output
    assert list(tmp_path.glob("smoke-*")) == [folder]


# ---- hfc data


def test_data_says_where_each_part_came_from(hfc, monkeypatch, cifar):
    def source(split, progress):
        images, labels = cifar[split]
        return images.numpy(), labels.numpy(), f"a shelf with {split}"

    def silent(split, progress):
        raise _Unavailable("nobody there")

    monkeypatch.setattr("hfclib.data.cifar.SOURCES", [("first", silent), ("second", source)])
    result = hfc("data")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "train images: a shelf with train",
        "train labels: a shelf with train",
        "test images: a shelf with test",
        "test labels: a shelf with test",
    ]


def test_data_that_nobody_has(hfc, monkeypatch):
    def silent(split, progress):
        raise _Unavailable("nobody there")

    monkeypatch.setattr("hfclib.data.cifar.SOURCES", [("the shelf", silent), ("the attic", silent)])
    result = hfc("data")
    assert result.exit_code == 1
    assert "Error: no source has CIFAR-10 train" in result.output
    assert "the shelf: nobody there" in result.output
    assert "the attic: nobody there" in result.output
    assert "HFCLIB_HOME" in result.output


# ---- hfc sweep


@pytest.fixture
def swept(monkeypatch):
    """What the sweep was asked for; it comes to `swept["report"]`."""
    asked = {"report": SweepReport()}

    def sweep(recipes, seeds, **options):
        asked.update(options, recipes=[recipe.name for recipe in recipes.values()], seeds=seeds)
        options["say"]("a line")
        return asked["report"]

    monkeypatch.setattr("hfclib.cli.run_sweep", sweep)
    return asked


def test_sweep_hands_its_options_on(hfc, swept, tmp_path):
    words = ["--seeds", "0-2", "--workers", "3", "--store", tmp_path, "--variant", "mixup", "--retrain"]
    result = hfc("sweep", "fig4", "--preset", "smoke", *words)
    assert result.exit_code == 0, result.output
    assert result.output == "a line\n"
    assert (swept["recipes"], swept["seeds"]) == (["smoke-mixup"], [0, 1, 2])
    assert (swept["workers"], swept["store"], swept["retrain"]) == (3, tmp_path, True)
    assert swept["engine"] is local_engine


def test_sweep_on_ray_gets_the_address(hfc, swept, monkeypatch):
    monkeypatch.setattr("hfclib.cli.ray_engine", lambda address: f"ray at {address}")
    assert hfc("sweep", "fig1", "--engine", "ray", "--address", "auto").exit_code == 0
    assert swept["engine"] == "ray at auto"
    assert hfc("sweep", "fig1", "--engine", "ray").exit_code == 0
    assert swept["engine"] == "ray at None"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fig5"], f"Error: expected chapter, one of {', '.join(RECIPES)}"),
        (["fig4", "--preset", "huge"], "Error: expected preset, one of"),
        (["fig4", "--seeds", "0-x"], "Error: expected seeds such as 3, 0-9 or 0,2,5, got '0-x'"),
        (["fig4", "--engine", "slurm"], "Error: expected engine local, or ray"),
        (["fig4", "--address", "auto"], "Error: expected engine local, or ray"),
        (["fig4", "--variant", "x"], "Error: expected variant, one of"),
    ],
)
def test_bad_choices_sweep_nothing(hfc, monkeypatch, words, message):
    monkeypatch.setattr("hfclib.cli.run_sweep", lambda *args, **options: pytest.fail("swept"))
    result = hfc("sweep", *words)
    assert result.exit_code == 1
    assert message in result.output
    assert hfc("sweep", "fig4", "--workers", "0").exit_code == 2


def test_a_sweep_with_failures_ends_with_them_and_status_1(hfc, swept):
    swept["report"].failures[Job(fig4_recipes("smoke")["mixup"], 4)] = "the loss is nan"
    result = hfc("sweep", "fig4", "--preset", "smoke")
    assert result.exit_code == 1
    assert result.output == "a line\nError: smoke-mixup, seed 4: the loss is nan\n"


def test_a_stopped_sweep_says_what_is_kept(hfc, swept):
    swept["report"].stopped = True
    before = signal.getsignal(signal.SIGTERM)
    result = hfc("sweep", "fig4", "--preset", "smoke")
    assert result.exit_code == 130
    assert "what has ended is stored" in result.output
    assert signal.getsignal(signal.SIGTERM) is before


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


def test_runs_says_which_one_is_being_trained(hfc, store):
    with locked(store / f"{fig4_recipes('smoke')['dropout'].run_name(7)}.lock", say=pytest.fail):
        assert "training, 1 epoch done" in hfc("runs", "--store", store).output


def test_runs_lists_the_published_ones_and_your_own(hfc, own_home, store):
    (own_home / "runs").parent.mkdir(exist_ok=True)
    store.rename(own_home / "runs")
    said = hfc("runs").output
    assert "laptop-batchnorm" in said
    assert "smoke-dropout" in said


@pytest.mark.parametrize("words", [["runs", "verify", "--store"], ["runs", "--store"]])
def test_verify_names_the_damaged_file_and_fails(hfc, store, words):
    result = hfc(*words, store, *(["verify"] if words == ["runs", "--store"] else []))
    assert result.exit_code == 1
    assert "final.csv can't be read" in result.output
    assert "3 runs, 1 damaged" in result.output
    checkpoint = next(store.glob("*.partial")) / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    result = hfc("runs", "verify", "--store", store)
    assert f"the checkpoint {checkpoint} is damaged" in result.output
    assert "3 runs, 2 damaged" in result.output


@pytest.mark.parametrize("words", [["runs"], ["runs", "verify"]])
def test_a_folder_that_is_not_there_is_no_store_without_damage(hfc, tmp_path, words):
    result = hfc(*words, "--store", tmp_path / "typo")
    assert result.exit_code == 1
    assert "expected --store, a folder of runs, got" in result.output


def test_verify_is_content_with_sound_runs(hfc, store):
    shutil.rmtree(store / fig4_recipes("laptop")["mixup"].run_name(0))
    result = hfc("runs", "verify", "--store", store)
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "2 runs, 0 damaged"


# ---- hfc run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fig5"], f"expected notebook, one of {', '.join(CHAPTERS)}, in a checkout"),
        (["fig4", "-p", "radius"], "expected -p NAME VALUE"),
        (["fig4", "radius", "8"], "expected -p NAME VALUE"),
        (["fig4", "-p", "raduis", "8"], "unknown parameter raduis"),
    ],
)
def test_run_refuses_before_it_starts(hfc, monkeypatch, tmp_path, words, message):
    monkeypatch.setattr("papermill.execute_notebook", lambda *args, **options: pytest.fail("the notebook ran"))
    result = hfc("run", *words, "--output", tmp_path / "out.ipynb")
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "out.ipynb").exists()


def test_run_hands_values_to_the_notebook(hfc, monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr("papermill.execute_notebook", lambda *args, **options: given.append(args))
    result = hfc("run", "fig4", "-p", "radius", "[4, 8]", "-p", "preset", "smoke", "--output", tmp_path / "out.ipynb")
    assert result.exit_code == 0, result.output
    assert given[0][2] == {"radius": [4, 8], "preset": "smoke"}
    assert given[0][1] == str(tmp_path / "out.ipynb")
