"""The `hfc` command, through typer's runner."""

import re

import pytest
from typer.testing import CliRunner

from hfclib import cli, data, obtain, runs, training
from hfclib.checkpoints import CheckpointError
from hfclib.data import DataError
from hfclib.figures import fig4
from hfclib.training import TrainingError


@pytest.fixture
def hfc(monkeypatch):
    """Run `hfc` with these words; result.output has both streams."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    return lambda *words: CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(runs, "train", lambda *args, **options: pytest.fail("something was trained"))


@pytest.mark.parametrize("command", ["data", "train", "run"])
def test_help(hfc, command):
    overview = hfc("--help")
    assert overview.exit_code == 0
    assert command in overview.output
    detail = hfc(command, "--help")
    assert detail.exit_code == 0
    assert getattr(cli, command).__doc__.split(".")[0] in " ".join(detail.output.split())


def test_help_names_the_choices(hfc):
    said = " ".join(hfc("train", "--help").output.split())
    for word in ("fig4", "smoke", "laptop", "paper", "authors", "--seed", "--panel", "--store", "--retrain"):
        assert word in said


def test_no_command_shows_the_help(hfc):
    assert "train" in hfc().output


@pytest.mark.parametrize("words", [["fly"], ["train"], ["train", "fig4", "--fast"], ["train", "fig4", "--seed", "one"]])
def test_unknown_words_are_usage_errors(hfc, no_training, words):
    assert hfc(*words).exit_code == 2


def test_train_trains_what_is_missing_and_then_loads_it(hfc, monkeypatch, decoded_once, tmp_path):
    for module in (training, runs):  # most of the time of a smoke run goes into measuring bands
        monkeypatch.setattr(module, "RADII", (4,))
    words = ["train", "fig4", "--preset", "smoke", "--store", tmp_path / "store"]
    first = hfc(*words)
    assert first.exit_code == 0, first.output
    assert "4 runs to train on" in first.output
    for name, recipe in fig4("smoke").items():
        folder = tmp_path / "store" / recipe.run_name(0)
        accuracy = runs.load(folder).test_accuracy()
        assert f"smoke-{name}, seed 0: trained, test accuracy {accuracy:.3f}, {folder}" in first.output
    monkeypatch.setattr(runs, "train", lambda *args, **options: pytest.fail("trained again"))
    again = hfc(*words)
    assert again.exit_code == 0, again.output
    assert again.output.count(": stored, test accuracy") == 4
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

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(obtain, "estimate_seconds", lambda *args: 60)
    return asked


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [(f"smoke-{panel}", 0) for panel in fig4("smoke")]),
        (["--panel", "mixup"], [("smoke-mixup", 0)]),
        (["--panel", "mixup", "--panel", "vanilla"], [("smoke-vanilla", 0), ("smoke-mixup", 0)]),
        (["--panel", "mixup", "--seed", "3", "--seed", "1"], [("smoke-mixup", 3), ("smoke-mixup", 1)]),
        (["--panel", "mixup", "--seed", "2", "--seed", "2"], [("smoke-mixup", 2)]),
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
        (["fig5"], "Error: expected figure, one of fig1, fig2, fig3, fig4, defense, got 'fig5'"),
        (["fig4", "--preset", "huge"], "Error: expected preset, one of smoke, laptop, paper, authors, got 'huge'"),
        (["fig4", "--panel", "batchnrom"],
         "Error: expected panel, one of vanilla, dropout, mixup, batchnorm, got batchnrom"),
        (["fig4", "--panel", "mixup", "--panel", "x"], "got x"),
        (["fig4", "--seed", "-1"], "Error: expected seed, a whole number of at least 0, got [-1]"),
        (["fig4", "--seed", "0", "--seed", "-2"], "Error: expected seed, a whole number of at least 0"),
    ],
)  # fmt: skip
def test_bad_choices_train_nothing(hfc, no_training, tmp_path, words, message):
    result = hfc("train", *words, "--store", tmp_path / "store")
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("error", [DataError, TrainingError, CheckpointError, runs.RunError])
def test_a_failure_is_told_in_one_line(hfc, monkeypatch, tmp_path, error):
    def failing(*args, **options):
        raise error("what went wrong")

    monkeypatch.setattr(runs, "train", failing)
    monkeypatch.setattr(obtain, "estimate_seconds", lambda *args: 60)
    result = hfc("train", "fig4", "--preset", "smoke", "--store", tmp_path)
    assert result.exit_code == 1
    assert "Error: what went wrong" in result.output
    assert "Traceback" not in result.output


def test_a_damaged_stored_run_stops_before_any_training(hfc, no_training, tmp_path):
    folder = tmp_path / fig4("smoke")["mixup"].run_name(0)
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
        raise data._Unavailable("nobody there")

    monkeypatch.setattr(data, "SOURCES", [("first", silent), ("second", source)])
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
        raise data._Unavailable("nobody there")

    monkeypatch.setattr(data, "SOURCES", [("the shelf", silent), ("the attic", silent)])
    result = hfc("data")
    assert result.exit_code == 1
    assert "Error: no source has CIFAR-10 train" in result.output
    assert "the shelf: nobody there" in result.output
    assert "the attic: nobody there" in result.output
    assert "HFCLIB_HOME" in result.output


# ---- hfc run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fig5"], "expected figure, one of fig1, fig2, fig3, fig4, defense"),
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
