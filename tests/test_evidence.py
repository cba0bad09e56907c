"""hfclib.evidence: the tables behind the scoreboard come from stored runs, and nothing is trained."""

import pandas as pd
import pytest
import torch

from hfclib import claims, evidence, figures, predictions, runs, tables_misalignment
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


def test_every_claim_is_on_the_board_of_all_evidence(shelf, answers, true_classes):
    shelf |= {(recipe.name, seed) for make in figures.FIGURES.values() for recipe in make("laptop").values()
              for seed in figures.PUBLISHED_SEEDS}  # fmt: skip
    found = evidence.published()
    assert set(found) == {"fig1", "fig2", "fig3", "fig4"}
    assert set(found["fig1"]["seed"]) == {0}
    assert set(found["fig3"]["panel"]) == set(figures.fig3())
    assert set(found["fig3"]["seed"]) == {0, 1, 2}
    expected = tables_misalignment.misaligned({panel: [one] for panel, one in answers.items()}, (0,), true_classes)
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
