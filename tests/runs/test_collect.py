import shutil
import time

import pandas as pd
import pytest
import torch

from hfclib.paper.misalignment import fig2_recipes
from hfclib.paper.presets import fig4_recipes
from hfclib.runs.collect import estimate_seconds, load_or_train, obtain, published_runs, stored_runs
from hfclib.runs.store import Run, RunError
from hfclib.runs.train import train_run
from hfclib.training.loop import Progress
from hfclib.training.recipe import Recipe
from tests.runs.foreign import shelve

RECIPES = {
    variant: recipe.with_(epochs=1, train_images=128, eval_images=100, final_images=100)
    for variant, recipe in fig4_recipes("smoke").items()
    if variant in ("vanilla", "mixup")
}


@pytest.fixture
def trained(train_by):
    """Records what would be trained, in order, and stores nothing."""
    done = []

    def train(recipe, *, seed, store, progress):
        done.append((recipe.name, seed))
        return f"run {recipe.name} {seed}"

    train_by(train)
    return done


def test_the_first_seed_of_everything_comes_before_the_second_of_anything(trained):
    found = list(load_or_train(RECIPES, [5, 3], progress=False))
    assert trained == [("smoke-vanilla", 5), ("smoke-mixup", 5), ("smoke-vanilla", 3), ("smoke-mixup", 3)]
    assert [new for _, _, new in found] == [True] * 4


FIG2 = {variant: recipe.with_(train_images=128) for variant, recipe in fig2_recipes("smoke").items()}

OPTIONAL = ("fullwidth",)


@pytest.fixture
def shelf(published_folder, trained):
    """Puts runs of some seeds on the shelf of published ones, where no other is; nothing is trained."""
    table = pd.DataFrame({"accuracy": [0.5]})

    def put(recipe, *seeds):
        for seed in seeds:
            shelve(published_folder / "runs", Run(recipe, seed, table, table, {}, None))

    return put


def seeds_of(runs):
    """By variant the seeds of runs, which have the recipes of FIG2; those that were trained say so."""
    for variant, ones in runs.items():
        assert all(isinstance(run, str) or run.recipe == FIG2[variant] for run in ones)
    return {variant: [run if isinstance(run, str) else run.seed for run in ones] for variant, ones in runs.items()}


def test_what_another_process_has_trained_in_the_meantime_is_loaded(shelf, trained):
    under_way = load_or_train(RECIPES, [0], progress=False)
    assert next(under_way)[1] == "run smoke-vanilla 0"
    shelf(RECIPES["mixup"], 0)
    variant, run, new = next(under_way)
    assert (variant, run.recipe, run.seed, new) == ("mixup", RECIPES["mixup"], 0, False)
    assert list(load_or_train(RECIPES, [0], retrain=True, progress=False))[1][1:] == ("run smoke-mixup 0", True)


def test_a_panel_that_takes_hours_is_left_out_where_it_is_not_stored(shelf, trained, capsys):
    shelf(FIG2["vanilla"], 0)
    shelf(FIG2["batchnorm"], 0)
    assert seeds_of(obtain(FIG2, [0], optional=OPTIONAL)) == {"vanilla": [0], "batchnorm": [0]}
    assert trained == []
    assert capsys.readouterr().out == ""


def test_and_is_there_with_the_seeds_that_are_stored(shelf, published_folder, trained):
    for recipe in FIG2.values():
        shelf(recipe, 0, 1)
    assert seeds_of(obtain(FIG2, [0, 1], optional=OPTIONAL)) == {variant: [0, 1] for variant in FIG2}
    shutil.rmtree(published_folder / "runs" / FIG2["fullwidth"].run_name(0))
    seeds = seeds_of(obtain(FIG2, [0, 1], optional=OPTIONAL))
    assert list(seeds) == ["vanilla", "batchnorm", "fullwidth"]
    assert seeds == {"vanilla": [0, 1], "batchnorm": [0, 1], "fullwidth": [1]}
    assert list(obtain(FIG2, [0], optional=OPTIONAL)) == ["vanilla", "batchnorm"]
    assert trained == []


def test_other_panels_are_trained_where_they_are_not_stored(shelf, trained):
    shelf(FIG2["vanilla"], 0)
    runs = obtain(FIG2, [0], optional=OPTIONAL)
    assert trained == [("smoke-batchnorm", 0)]
    assert seeds_of(runs) == {"vanilla": [0], "batchnorm": ["run smoke-batchnorm 0"]}


def test_retraining_replaces_a_damaged_run(trained, published_folder):
    (published_folder / "runs" / FIG2["vanilla"].run_name(0)).mkdir(parents=True)
    with pytest.raises(RunError):
        obtain(FIG2, [0], optional=OPTIONAL)
    assert trained == []
    assert list(obtain(FIG2, [0], retrain=True, optional=OPTIONAL)) == list(FIG2)
    assert trained == [(recipe.name, 0) for recipe in FIG2.values()]


def test_what_is_stored_is_had_without_any_training(shelf, trained):
    shelf(FIG2["vanilla"], 0, 1)
    shelf(FIG2["batchnorm"], 0)
    assert seeds_of(stored_runs(FIG2, [0, 1], OPTIONAL)) == {"vanilla": [0, 1]}
    assert seeds_of(stored_runs(FIG2, [0], OPTIONAL)) == {"vanilla": [0], "batchnorm": [0]}
    assert stored_runs(FIG2, [7], OPTIONAL) == {}
    shelf(FIG2["fullwidth"], 1)  # one that a figure can do without, and so can show with any of its seeds
    assert seeds_of(stored_runs(FIG2, [0, 1], OPTIONAL))["fullwidth"] == [1]
    assert list(stored_runs(FIG2, [0], OPTIONAL)) == ["vanilla", "batchnorm"]
    shelf(FIG2["vanilla"], 23)  # of whatever seed
    assert seeds_of(published_runs(FIG2)) == {"vanilla": [0, 1, 23], "batchnorm": [0], "fullwidth": [1]}
    assert trained == []


def test_the_time_is_announced_before_the_first_training(train_by, capsys):
    said = []
    train_by(lambda *args, **options: said.append(capsys.readouterr().out))
    list(load_or_train(RECIPES, [0]))
    assert said[0].startswith("2 runs to train on ")
    assert said[0].endswith(": about 2.0 minutes\n")


def test_the_estimate_counts_small_images_and_measurements(monkeypatch):
    monkeypatch.setattr(
        "hfclib.runs.collect.fit_own",
        lambda model, *args, **options: Progress(train_seconds=2 * 10 * 0.5, eval_seconds=10 * 0.25),
    )
    recipe = Recipe("a").with_(width=2, epochs=4, batch_size=10, train_images=100, eval_images=10, final_images=20)
    for changes, epochs in (({}, 4), ({"early_sizes": (16, 16)}, 2.5)):
        found = estimate_seconds(recipe.with_(**changes), torch.device("cpu"))
        assert found == pytest.approx(0.5 * epochs * 100 + 0.25 * (40 + 20))


@pytest.mark.slow
def test_the_estimate_is_near_the_time_that_a_training_takes(measured_at, tmp_path):
    measured_at(4)
    recipe = Recipe("a").with_(width=8, epochs=2, batch_size=50, train_images=500, eval_images=100, final_images=100)
    start = time.perf_counter()
    train_run(recipe, seed=0, store=tmp_path, progress=False)
    taken = time.perf_counter() - start
    assert taken / 5 < estimate_seconds(recipe, torch.device("cpu")) < 5 * taken


def test_real_runs_end_up_with_their_variants(measured_at):
    measured_at(4)
    runs = obtain(RECIPES, [0, 1])
    assert {variant: [run.seed for run in ones] for variant, ones in runs.items()} == {
        "vanilla": [0, 1],
        "mixup": [0, 1],
    }
    assert len(runs.all()) == 4
    first = next(iter(runs))
    assert runs.all([first, first, "another"]) == runs[first]
    assert runs["mixup"][1].recipe == RECIPES["mixup"]


def test_an_estimate_leaves_the_callers_random_numbers_alone(no_bands):
    recipe, state = RECIPES["vanilla"].with_(dropout=0.5, width=2, batch_size=8), torch.get_rng_state()
    with torch.device("meta"):  # nor does it take the default device for its own
        assert estimate_seconds(recipe, torch.device("cpu")) > 0
    assert torch.equal(torch.get_rng_state(), state)
