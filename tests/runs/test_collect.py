import time

import pytest
import torch

from hfclib.paper.misalignment import fig2_recipes
from hfclib.paper.presets import fig4_recipes
from hfclib.runs.collect import estimate_seconds, load_or_train, obtain, published_runs, stored_runs
from hfclib.runs.store import RunError
from hfclib.runs.train import train_run
from hfclib.training.loop import Progress
from hfclib.training.recipe import Recipe

RECIPES = {
    variant: recipe.with_(epochs=1, train_images=128, eval_images=100, final_images=100)
    for variant, recipe in fig4_recipes("smoke").items()
    if variant in ("vanilla", "mixup")
}


@pytest.fixture
def trained(monkeypatch):
    """Records what would be trained, in order, and stores nothing."""
    done = []

    def train(recipe, *, seed, store, progress):
        done.append((recipe.name, seed))
        return f"run {recipe.name} {seed}"

    monkeypatch.setattr("hfclib.runs.collect.train_run", train)
    return done


def test_the_first_seed_of_everything_comes_before_the_second_of_anything(trained):
    found = list(load_or_train(RECIPES, [5, 3], progress=False))
    assert trained == [("smoke-vanilla", 5), ("smoke-mixup", 5), ("smoke-vanilla", 3), ("smoke-mixup", 3)]
    assert [new for _, _, new in found] == [True] * 4


FIG2 = {variant: recipe.with_(train_images=128) for variant, recipe in fig2_recipes("smoke").items()}

OPTIONAL = ("fullwidth",)


@pytest.fixture
def shelf(monkeypatch, trained):
    """The (recipe name, seed) that count as stored; nothing is trained."""
    there = set()

    def find(recipe, seed, store=None, *, weights=True):
        return f"stored {recipe.name} {seed}" if (recipe.name, seed) in there else None

    def stored_seeds(recipe, places):
        return sorted(seed for name, seed in there if name == recipe.name)

    monkeypatch.setattr("hfclib.runs.collect.find", find)
    monkeypatch.setattr("hfclib.runs.collect.stored_seeds", stored_seeds)
    return there


def test_what_another_process_has_trained_in_the_meantime_is_loaded(shelf, trained):
    under_way = load_or_train(RECIPES, [0], progress=False)
    assert next(under_way)[1] == "run smoke-vanilla 0"
    shelf.add(("smoke-mixup", 0))
    assert next(under_way) == ("mixup", "stored smoke-mixup 0", False)
    assert list(load_or_train(RECIPES, [0], retrain=True, progress=False))[1][1:] == ("run smoke-mixup 0", True)


def test_a_panel_that_takes_hours_is_left_out_where_it_is_not_stored(shelf, trained, capsys):
    shelf |= {("smoke-vanilla", 0), ("smoke-batchnorm", 0)}
    assert obtain(FIG2, [0], optional=OPTIONAL) == {
        "vanilla": ["stored smoke-vanilla 0"],
        "batchnorm": ["stored smoke-batchnorm 0"],
    }
    assert trained == []
    assert capsys.readouterr().out == ""


def test_and_is_there_with_the_seeds_that_are_stored(shelf, trained):
    shelf |= {(recipe.name, seed) for recipe in FIG2.values() for seed in (0, 1)}
    assert {variant: len(ones) for variant, ones in obtain(FIG2, [0, 1], optional=OPTIONAL).items()} == dict.fromkeys(
        FIG2, 2
    )
    shelf.remove(("smoke-fullwidth", 0))
    found = obtain(FIG2, [0, 1], optional=OPTIONAL)
    assert list(found) == ["vanilla", "batchnorm", "fullwidth"]
    assert found["fullwidth"] == ["stored smoke-fullwidth 1"]
    assert len(found["vanilla"]) == len(found["batchnorm"]) == 2
    assert list(obtain(FIG2, [0], optional=OPTIONAL)) == ["vanilla", "batchnorm"]
    assert trained == []


def test_other_panels_are_trained_where_they_are_not_stored(shelf, trained):
    shelf.add(("smoke-vanilla", 0))
    found = obtain(FIG2, [0], optional=OPTIONAL)
    assert trained == [("smoke-batchnorm", 0)]
    assert found == {"vanilla": ["stored smoke-vanilla 0"], "batchnorm": ["run smoke-batchnorm 0"]}


def test_retraining_replaces_a_damaged_run(trained, monkeypatch):
    def find(recipe, seed, store=None, *, weights=True):
        raise RunError("damaged")

    monkeypatch.setattr("hfclib.runs.collect.find", find)
    with pytest.raises(RunError):
        obtain(FIG2, [0], optional=OPTIONAL)
    assert list(obtain(FIG2, [0], retrain=True, optional=OPTIONAL)) == list(FIG2)
    assert trained == [(recipe.name, 0) for recipe in FIG2.values()]


def test_what_is_stored_is_had_without_any_training(shelf, trained):
    shelf |= {("smoke-vanilla", 0), ("smoke-vanilla", 1), ("smoke-batchnorm", 0)}
    assert stored_runs(FIG2, [0, 1], OPTIONAL) == {"vanilla": ["stored smoke-vanilla 0", "stored smoke-vanilla 1"]}
    assert stored_runs(FIG2, [0], OPTIONAL).all() == ["stored smoke-vanilla 0", "stored smoke-batchnorm 0"]
    assert stored_runs(FIG2, [7], OPTIONAL) == {}
    shelf.add(("smoke-fullwidth", 1))  # one that a figure can do without, and so can show with any of its seeds
    assert stored_runs(FIG2, [0, 1], OPTIONAL)["fullwidth"] == ["stored smoke-fullwidth 1"]
    assert list(stored_runs(FIG2, [0], OPTIONAL)) == ["vanilla", "batchnorm"]
    shelf.add(("smoke-vanilla", 23))  # of whatever seed
    assert published_runs(FIG2)["vanilla"] == [f"stored smoke-vanilla {seed}" for seed in (0, 1, 23)]
    assert list(published_runs(FIG2)) == list(FIG2)
    assert trained == []


def test_the_time_is_announced_before_the_first_training(monkeypatch, capsys):
    said = []
    monkeypatch.setattr("hfclib.runs.collect.train_run", lambda *args, **options: said.append(capsys.readouterr().out))
    list(load_or_train(RECIPES, [0]))
    assert said[0].startswith("2 runs to train on ")
    assert "minutes" in said[0]


def test_the_estimate_counts_small_images_and_measurements(monkeypatch):
    monkeypatch.setattr(
        "hfclib.runs.collect.fit_own",
        lambda model, *args, **options: Progress(train_seconds=2 * 10 * 0.5, eval_seconds=10 * 0.25),
    )
    recipe = Recipe("a").with_(width=2, epochs=4, batch_size=10, train_images=100, eval_images=10, final_images=20)
    for changes, epochs in (({}, 4), ({"early_sizes": (16, 16)}, 2.5)):
        found = estimate_seconds(recipe.with_(**changes), torch.device("cpu"))
        assert found == pytest.approx(0.5 * epochs * 100 + 0.25 * (40 + 20))


def test_the_estimate_is_near_the_time_that_a_training_takes(monkeypatch, tmp_path):
    monkeypatch.setattr(Recipe, "radii", (4,))
    recipe = Recipe("a").with_(width=8, epochs=2, batch_size=50, train_images=500, eval_images=100, final_images=100)
    start = time.perf_counter()
    train_run(recipe, seed=0, store=tmp_path, progress=False)
    taken = time.perf_counter() - start
    assert taken / 5 < estimate_seconds(recipe, torch.device("cpu")) < 5 * taken


def test_real_runs_end_up_with_their_variants(monkeypatch):
    monkeypatch.setattr(Recipe, "radii", (4,))  # most of so small a training's time goes into measuring bands
    found = obtain(RECIPES, [0, 1])
    assert {variant: [run.seed for run in ones] for variant, ones in found.items()} == {
        "vanilla": [0, 1],
        "mixup": [0, 1],
    }
    assert len(found.all()) == 4
    first = next(iter(found))
    assert found.all([first, first, "another"]) == found[first]
    assert found["mixup"][1].recipe == RECIPES["mixup"]


def test_an_estimate_leaves_the_callers_random_numbers_alone(monkeypatch):
    monkeypatch.setattr(Recipe, "radii", ())
    recipe, state = RECIPES["vanilla"].with_(dropout=0.5, width=2, batch_size=8), torch.get_rng_state()
    with torch.device("meta"):  # nor does it take the default device for its own
        assert estimate_seconds(recipe, torch.device("cpu")) > 0
    assert torch.equal(torch.get_rng_state(), state)
