"""A reader's own runs never enter the published numbers, and a notebook that shows some says so and mixes nothing."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from hfclib._files import data_folder
from hfclib.paper.batchnorm import BATCHNORM
from hfclib.paper.chapter import OWN_RUNS
from hfclib.paper.defense import rule_by_network, table2_narrow
from hfclib.paper.departures import departures_table
from hfclib.paper.fig2 import FIG2, all_counts
from hfclib.paper.fig4 import FIG4
from hfclib.paper.registry import CHAPTERS
from hfclib.paper.scoreboard import CLAIMS, PUBLISHED, notebook_scoreboard, published_scoreboard, readable, scoreboard
from hfclib.paper.show import whose
from hfclib.paper.tables import gather
from hfclib.runs.collect import Runs
from hfclib.runs.predictions import read_record, store_record, weights_of
from hfclib.runs.store import is_published, load
from tests.paper.tidy import as_stored, stored_scoreboard
from tests.runs.foreign import RUNS, copy_records, write_run


def halved(table):
    return table.assign(accuracy=table["accuracy"] / 2)


@pytest.fixture(scope="session")
def foreign_home(tmp_path_factory):
    """A home full of a reader's runs.

    Of each published recipe it has seeds 20 and 21, and where a published run has no weights one of the same seed that
    has them, all with halved accuracies; of detectors seed 20; and predictions and attacks beside all of these, and
    beside published runs of which none are published.
    """
    home = tmp_path_factory.mktemp("foreign")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFCLIB_HOME", str(home))
        for path in sorted(RUNS.glob("*-0-*")):
            first = load(path)
            for seed in (20, 21):
                copy_records(home, first, write_run(home / "runs", first, seed, halved))
            for other in map(load, sorted(RUNS.glob(first.recipe.run_name("*")))):
                if first.has_weights and not other.has_weights:
                    write_run(home / "runs", other, other.seed, halved, first.path / "weights.safetensors")
                for kind in ("predictions", "attacks"):
                    file = data_folder() / kind / f"{path.name}.safetensors"
                    if not (file.with_name(f"{other.path.name}.safetensors")).exists():
                        tensors = read_record(file, weights_of(path))
                        store_record(kind, other.path.name, tensors, weights_of(other.path))
    for path in (data_folder() / "detection").glob("*-0-*"):
        copied = shutil.copytree(path, home / "detection" / path.name.replace("-0-", "-20-"))
        content = json.loads((copied / "run.json").read_text())
        (copied / "run.json").write_text(json.dumps(content | {"seed": 20}))
    return home


@pytest.fixture
def foreign(foreign_home, monkeypatch):
    monkeypatch.setenv("HFCLIB_HOME", str(foreign_home))
    return foreign_home


def test_published_claims_do_not_hang_on_a_readers_home(foreign):
    """A change of a verdict or a number is made on purpose, by a change of the stored table in the same commit."""
    boards = []
    for name, chapter in CHAPTERS.items():
        runs = chapter.obtain(chapter.parameters())
        assert all(is_published(run.path) for run in (runs if name == "detection" else runs.all()))
        boards.append(notebook_scoreboard(name, "laptop", runs))
    pd.testing.assert_frame_equal(as_stored(pd.concat(boards)).sort_index(), stored_scoreboard().sort_index())


def test_published_tables_do_not_hang_on_a_readers_home(foreign_home, monkeypatch):
    def tables():
        runs = Runs()
        return departures_table(), all_counts("laptop", runs), table2_narrow(runs), rule_by_network(runs)

    before = tables()
    monkeypatch.setenv("HFCLIB_HOME", str(foreign_home))
    for table, again in zip(before, tables(), strict=True):
        pd.testing.assert_frame_equal(again, table)


def test_the_home_of_these_tests_is_full_of_sound_runs(foreign):
    runs = [load(path) for path in (foreign / "runs").iterdir()]
    assert sum(run.seed == 20 for run in runs) == sum(run.seed == 21 for run in runs) >= 60
    assert sum(run.seed < 20 and run.has_weights for run in runs) >= 10
    assert CHAPTERS["detection"].find(CHAPTERS["detection"].recipes("laptop")["detector"], 20).seed == 20


def test_a_seed_of_yours_is_shown_by_itself_beside_the_published_verdicts(foreign, capsys):
    runs = FIG4.obtain(FIG4.check({"seeds": [20]}))
    assert capsys.readouterr().out == f"{OWN_RUNS}\n"
    assert {(run.seed, run.path.parent) for run in runs.all()} == {(20, foreign / "runs")}
    assert FIG4.judged("laptop", runs) == runs
    assert whose(runs) == "the seeds of this notebook"
    published = published_scoreboard(["fig4"])
    board = notebook_scoreboard("fig4", "laptop", runs)
    assert list(board.index) == [claim.id for claim in CLAIMS if claim.chapter == "fig4" and claim.preset == "laptop"]
    assert set(board["verdict"]) == {"one network"}
    first = published["mean"]["fig4-batchnorm-H4"]
    assert board["mean"]["fig4-batchnorm-H4"] < first * 0.7  # halved
    at = "fig4-batchnorm-H4"
    assert board.loc[at, PUBLISHED] == f"{published.loc[at, 'verdict']}: {published.loc[at, 'ours']}"
    shown = readable(board)
    assert PUBLISHED in shown
    assert "Of this notebook's runs" in shown.attrs["caption"]
    assert PUBLISHED not in readable(published)


def test_published_seeds_and_yours_are_mixed_only_where_both_are_named(foreign):
    both = FIG4.obtain(FIG4.check({"seeds": [1, 20]}))
    assert [run.seed for run in FIG4.judged("laptop", both)["batchnorm"]] == [1, 20]
    published = FIG4.obtain(FIG4.check({"seeds": [1, 2]}))
    judged = FIG4.judged("laptop", published)
    assert whose(judged) == "all published seeds"
    assert [run.seed for run in judged["batchnorm"]] == list(range(10))
    other = FIG4.judged("narrow", both)  # a preset of which the notebook has no run
    assert {run.path.parent for run in other.all()} == {RUNS}


def test_weights_of_yours_stand_in_only_where_a_notebook_asks_for_them(foreign):
    recipe = FIG2.recipes("laptop")["vanilla"]
    seed = next(run.seed for run in FIG2.published_runs()["vanilla"] if not run.has_weights)
    (asked,) = FIG2.obtain(FIG2.check({"seed": seed}))["vanilla"]
    assert asked.path == foreign / "runs" / recipe.run_name(seed)
    (shown, *_) = FIG4.obtain(FIG4.check({"seeds": [seed]}))["vanilla"]  # which asks for BatchNorm's
    assert shown.path == RUNS / recipe.run_name(seed)


def test_a_notebook_that_retrains_is_about_what_it_trained(foreign, train_by):
    """Weights of both are there: the runs of the home are not those that are published."""
    trained = []

    def train(recipe, *, seed, store, progress):
        run = load(foreign / "runs" / recipe.run_name(20))
        trained.append(recipe)
        return replace(run, seed=seed)

    train_by(train)
    settings = FIG4.check({"seeds": [0], "retrain": True})
    runs = FIG4.obtain(settings)
    assert trained == list(FIG4.recipes("laptop").values())
    assert FIG4.judged("laptop", runs) is runs
    board = notebook_scoreboard("fig4", "laptop", runs)
    own = scoreboard({"fig4": gather(runs, "final")})
    pd.testing.assert_frame_equal(board.drop(columns=PUBLISHED), own)
    assert not {run.path.parent for run in BATCHNORM.judged("narrow", runs).all()} - {RUNS}
