"""hfclib.evidence: the tables behind the scoreboard come from stored runs, and nothing is trained."""

import pandas as pd
import pytest
import torch

from hfclib import claims, evidence, figures, predictions, runs, tables_misalignment, trials
from hfclib.defenses import defenses, long_attacks, table_attacks
from hfclib.evaluation import CURVE_COLUMNS
from hfclib.runs import Run
from hfclib.training import initial


@pytest.fixture
def shelf(monkeypatch, answers, true_classes, tmp_path):
    """The (recipe name, seed) that count as stored; every accuracy is .5, and nothing is trained or computed."""
    there = set()

    def find(recipe, seed, store=None):
        if (recipe.name, seed) not in there:
            return None
        own = (recipe.train_band, recipe.train_radius or -1)
        fed = "raw" if recipe.train_band == "x" else "range"
        keys = {("train", *own, fed), ("test", *own, fed), ("test", "x", -1, "raw")}
        keys |= {("test", "hfc", radius, feed) for radius in (4, 8, 12, 16) for feed in ("raw", "max", "mean")}
        final = pd.DataFrame([(*key, stats, 100, 0.5) for key in keys for stats in ("running", "batch")],
                             columns=CURVE_COLUMNS)  # fmt: skip
        return Run(recipe, seed, final, final, {}, tmp_path)

    monkeypatch.setattr(runs, "find", find)
    monkeypatch.setattr(Run, "model", lambda run: initial(run.recipe, run.seed + 1000))
    monkeypatch.setattr(runs, "train", lambda *args, **options: pytest.fail("something was trained"))
    monkeypatch.setattr(predictions, "of", lambda run: answers[run.recipe.name.removeprefix("laptop-")])
    monkeypatch.setattr(evidence, "embedded", lambda split: (torch.zeros(0), true_classes))
    monkeypatch.setattr(trials, "_compute", lambda *args, **options: pytest.fail("a network was attacked"))
    return there


@pytest.fixture
def attacked(monkeypatch):
    """(recipe name, seed) of the runs whose attacks count as stored; every image withstands them."""
    there = set()

    def load(kind, run):
        assert kind == "attacks"
        every = [(one, attack) for one in defenses((0.1, 0.5, 1.0)) for eps in (0.03, 0.06, 0.09)
                 for attack in (*table_attacks(one, [eps], 20), *long_attacks(eps, 20))]  # fmt: skip
        stored = (run.recipe.name, run.seed) in there
        return {trials._name(trial, 500): torch.ones(500, dtype=torch.uint8) for trial in every if stored}

    monkeypatch.setattr(trials.records, "load", load)
    return there


def test_nothing_stored_is_no_evidence(shelf):
    assert evidence.published() == {}


def test_a_figure_whose_networks_are_all_missing_is_left_out(shelf):
    shelf |= {(recipe.name, seed) for recipe in figures.fig4().values() for seed in figures.PUBLISHED_SEEDS
              if recipe.norm == "none"}  # fmt: skip
    found = evidence.published()
    assert set(found) == {"fig2", "fig3", "fig4"}
    assert set(found["fig3"]["panel"]) == {"vanilla", "adversarial"}
    assert set(found["fig4"]["panel"]) == {"vanilla", "dropout", "mixup", "adversarial"}
    assert set(found["fig4"]["seed"]) == {0, 1, 2}


def test_every_claim_is_on_the_board_of_all_evidence(shelf, attacked, answers, true_classes):
    shelf |= {(recipe.name, seed) for make in figures.FIGURES.values() for recipe in make("laptop").values()
              for seed in figures.PUBLISHED_SEEDS}  # fmt: skip
    attacked |= {(recipe.name, 0) for recipe in figures.defense().values()}
    found = evidence.published()
    assert set(found) == {"fig1", "fig2", "fig3", "fig4", "defense"}
    assert set(found["fig1"]["seed"]) == {0}
    assert set(found["fig3"]["panel"]) == set(figures.fig3())
    assert set(found["fig3"]["seed"]) == {0, 1, 2}
    expected = tables_misalignment.misaligned({panel: {0: one} for panel, one in answers.items()}, true_classes)
    pd.testing.assert_frame_equal(found["fig2"], expected)
    board = claims.scoreboard(found)
    assert list(board.index) == [claim.id for claim in claims.CLAIMS]
    assert "run missing" not in set(board["verdict"])
    assert set(evidence.HEADLINES) <= set(board.index)


def test_kernels_of_the_seeds_that_are_stored(shelf):
    recipes = figures.fig3()
    shelf |= {(recipes[panel].name, seed) for panel in ("vanilla", "batchnorm") for seed in (0, 1, 2)}
    shelf.add((recipes["adversarial"].name, 0))
    found = evidence.published()["fig3"]
    assert found.groupby("panel")["seed"].unique().map(list).to_dict() == {
        "adversarial": [0], "batchnorm": [0, 1, 2], "vanilla": [0, 1, 2],
    }  # fmt: skip
    board = claims.scoreboard({"fig3": found})
    assert board.loc["fig3-roughness-adversarial", "interval"] == "kernels, 1 seed"
    assert board.loc["fig3-roughness-adversarial_batchnorm", "verdict"] == "run missing"


def test_attacks_that_are_not_stored_are_not_run(shelf):
    shelf |= {(recipe.name, seed) for recipe in figures.defense().values() for seed in figures.PUBLISHED_SEEDS}
    assert "defense" not in evidence.published()


def test_networks_are_judged_with_those_seeds_whose_attacks_are_stored(shelf, attacked):
    recipes = figures.defense()
    shelf |= {(recipe.name, seed) for recipe in recipes.values() for seed in figures.PUBLISHED_SEEDS}
    attacked |= {(recipes[panel].name, seed) for panel, seed in (("vanilla", 0), ("vanilla", 2), ("adversarial", 0))}
    found = evidence.published()["defense"]
    assert found.groupby("panel")["seed"].unique().map(list).to_dict() == {"adversarial": [0], "vanilla": [0, 2]}
    assert not found.duplicated(trials.COLUMNS).any()
    assert set(found["steps"]) == {0, 1, 20}
    assert set(found["images"]) == {500}
    board = claims.scoreboard({"defense": found})
    assert board.loc["defense-rule-marginal", "interval"] == "2 seeds"
    assert board.loc["defense-adversarial-pgd", "interval"] == "images, 1 seed"
    assert board.loc["defense-penalised-marginal", "verdict"] == "run missing"
