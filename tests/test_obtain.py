import dataclasses

import pytest
import torch

from hfclib import figures, runs
from hfclib.obtain import each, estimate_seconds, obtain

RECIPES = {
    panel: dataclasses.replace(recipe, epochs=1, train_images=128, eval_images=100, final_images=100)
    for panel, recipe in figures.fig4("smoke").items()
    if panel in ("vanilla", "mixup")
}


@pytest.fixture
def trained(monkeypatch):
    """Records what would be trained, in order, and stores nothing."""
    done = []

    def train(recipe, *, seed, store, progress):
        done.append((recipe.name, seed))
        return f"run {recipe.name} {seed}"

    monkeypatch.setattr(runs, "train", train)
    return done


def test_the_first_seed_of_everything_comes_before_the_second_of_anything(trained):
    found = list(each(RECIPES, [5, 3], progress=False))
    assert trained == [("smoke-vanilla", 5), ("smoke-mixup", 5), ("smoke-vanilla", 3), ("smoke-mixup", 3)]
    assert [new for _, _, new in found] == [True] * 4


def test_what_is_stored_is_not_trained_again_unless_asked(trained, monkeypatch, capsys):
    monkeypatch.setattr(runs, "find", lambda recipe, seed, store: "stored" if recipe.norm == "none" else None)
    assert obtain(RECIPES, [0]) == {"vanilla": ["stored"], "mixup": ["stored"]}
    assert trained == []
    assert capsys.readouterr().out == ""
    obtain(RECIPES, [0], retrain=True)
    assert trained == [("smoke-vanilla", 0), ("smoke-mixup", 0)]


def test_the_time_is_announced_before_the_first_training(monkeypatch, capsys):
    said = []
    monkeypatch.setattr(runs, "train", lambda *args, **options: said.append(capsys.readouterr().out))
    list(each(RECIPES, [0]))
    assert said[0].startswith("2 runs to train on ")
    assert "minutes" in said[0]


def test_the_estimate_grows_with_the_work():
    device = torch.device("cpu")
    short = estimate_seconds(RECIPES["vanilla"], device)
    long = estimate_seconds(dataclasses.replace(RECIPES["vanilla"], epochs=100), device)
    assert 0 < 10 * short < long


def test_real_runs_end_up_with_their_panels():
    found = obtain(RECIPES, [0, 1])
    assert {panel: [run.seed for run in ones] for panel, ones in found.items()} == {"vanilla": [0, 1], "mixup": [0, 1]}
    assert len(found.all()) == 4
    assert found["mixup"][1].recipe == RECIPES["mixup"]
