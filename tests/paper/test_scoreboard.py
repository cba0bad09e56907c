"""The scoreboard: every claim is on it, with evidence from stored runs; nothing is trained."""

import pandas as pd
import pytest
import torch

from hfclib.evaluation import CURVE_COLUMNS
from hfclib.paper.defense.setup import all_defenses, defense_recipes, long_attacks, table_attacks
from hfclib.paper.defense.trials import TRIAL_COLUMNS, _trial_name
from hfclib.paper.fig2 import counts_over_seeds
from hfclib.paper.fig3 import fig3_recipes
from hfclib.paper.presets import PUBLISHED_SEEDS, fig4_recipes
from hfclib.paper.published import table1_value, table2_value
from hfclib.paper.registry import CHAPTERS
from hfclib.paper.scoreboard import CLAIMS, COLUMNS, HEADLINES, published_evidence, scoreboard
from hfclib.runs.store import Run
from hfclib.training.loop import initial_model


@pytest.fixture
def shelf(monkeypatch, answers, true_classes, tmp_path):
    """The (recipe name, seed) that count as stored; every accuracy is .5, and nothing is trained or computed."""
    there = set()
    (tmp_path / "weights.safetensors").touch()

    def find(recipe, seed, store=None):
        if (recipe.name, seed) not in there:
            return None
        own = (recipe.train_band, recipe.train_radius or -1)
        fed = "raw" if recipe.train_band == "x" else "range"
        keys = {("train", *own, fed), ("test", *own, fed), ("test", "x", -1, "raw")}
        keys |= {("test", "hfc", radius, feed) for radius in (4, 8, 12, 16) for feed in ("raw", "max", "mean")}
        final = pd.DataFrame(
            [(*key, stats, 100, 0.5) for key in keys for stats in ("running", "batch")], columns=CURVE_COLUMNS
        )
        return Run(recipe, seed, final, final, {}, tmp_path)

    monkeypatch.setattr("hfclib.runs.collect.find", find)
    monkeypatch.setattr(Run, "model", lambda run: initial_model(run.recipe, run.seed + 1000))
    monkeypatch.setattr("hfclib.runs.collect.train_run", lambda *args, **options: pytest.fail("something was trained"))
    monkeypatch.setattr(
        "hfclib.paper.fig2.predictions_of", lambda run: answers[run.recipe.name.removeprefix("laptop-")]
    )
    monkeypatch.setattr("hfclib.paper.fig2.embedded", lambda split: (torch.zeros(0), true_classes))
    monkeypatch.setattr(
        "hfclib.paper.defense.trials._compute", lambda *args, **options: pytest.fail("a network was attacked")
    )
    return there


@pytest.fixture
def attacked(monkeypatch):
    """(recipe name, seed) of the runs whose attacks count as stored; every image withstands them."""
    there = set()

    def load(kind, run):
        assert kind == "attacks"
        every = [
            (one, attack)
            for one in all_defenses((0.1, 0.5, 1.0))
            for eps in (0.03, 0.06, 0.09)
            for attack in (*table_attacks(one, [eps], 20), *long_attacks(eps, 20))
        ]
        stored = (run.recipe.name, run.seed) in there
        return {_trial_name(trial, 500): torch.ones(500, dtype=torch.uint8) for trial in every if stored}

    monkeypatch.setattr("hfclib.paper.defense.trials.load_record", load)
    return there


def test_nothing_stored_is_no_evidence(shelf):
    assert set(published_evidence()) <= {"detection"}


def test_a_figure_whose_networks_are_all_missing_is_left_out(shelf):
    shelf |= {
        (recipe.name, seed) for recipe in fig4_recipes().values() for seed in PUBLISHED_SEEDS if recipe.norm == "none"
    }
    found = published_evidence()
    assert set(found) == {"fig2", "fig3", "fig4", "batchnorm", "detection"}
    assert set(found["fig3"]["variant"]) == {"vanilla", "adversarial"}
    assert set(found["fig4"]["variant"]) == {"vanilla", "dropout", "mixup", "adversarial"}
    assert set(found["fig4"]["seed"]) == {0, 1, 2}


def test_every_claim_is_on_the_board_of_all_evidence(shelf, attacked, answers, true_classes):
    shelf |= {
        (recipe.name, seed)
        for chapter in CHAPTERS.values()
        for recipe in chapter.recipes("laptop").values()
        for seed in PUBLISHED_SEEDS
    }
    attacked |= {(recipe.name, 0) for recipe in defense_recipes().values()}
    found = published_evidence()
    assert set(found) >= {"fig1", "fig2", "fig3", "fig4", "defense"}
    assert set(found["fig1"]["seed"]) == {0}
    assert set(found["fig3"]["variant"]) == set(fig3_recipes())
    assert set(found["fig3"]["seed"]) == {0, 1, 2}
    expected = counts_over_seeds({variant: {0: one} for variant, one in answers.items()}, true_classes)
    pd.testing.assert_frame_equal(found["fig2"], expected)
    board = scoreboard(found)
    assert list(board.index) == [claim.id for claim in CLAIMS]
    missing = board[board["verdict"] == "run missing"]
    assert set(missing["figure"]) == {"batchnorm"}  # matched moments are not stored in the runs themselves
    assert set(HEADLINES) <= set(board.index)


def test_kernels_of_the_seeds_that_are_stored(shelf):
    recipes = fig3_recipes()
    shelf |= {(recipes[variant].name, seed) for variant in ("vanilla", "batchnorm") for seed in (0, 1, 2)}
    shelf.add((recipes["adversarial"].name, 0))
    found = published_evidence()["fig3"]
    assert found.groupby("variant")["seed"].unique().map(list).to_dict() == {
        "adversarial": [0],
        "batchnorm": [0, 1, 2],
        "vanilla": [0, 1, 2],
    }
    board = scoreboard({"fig3": found})
    assert board.loc["fig3-roughness-adversarial", "interval"] == "kernels, 1 seed"
    assert board.loc["fig3-roughness-adversarial_batchnorm", "verdict"] == "run missing"


def test_attacks_that_are_not_stored_are_not_run(shelf):
    shelf |= {(recipe.name, seed) for recipe in defense_recipes().values() for seed in PUBLISHED_SEEDS}
    assert "defense" not in published_evidence()


def test_networks_are_judged_with_those_seeds_whose_attacks_are_stored(shelf, attacked):
    recipes = defense_recipes()
    shelf |= {(recipe.name, seed) for recipe in recipes.values() for seed in PUBLISHED_SEEDS}
    attacked |= {
        (recipes[variant].name, seed) for variant, seed in (("vanilla", 0), ("vanilla", 2), ("adversarial", 0))
    }
    found = published_evidence()["defense"]
    assert found.groupby("variant")["seed"].unique().map(list).to_dict() == {"adversarial": [0], "vanilla": [0, 2]}
    assert not found.duplicated(TRIAL_COLUMNS).any()
    assert set(found["steps"]) == {0, 1, 20}
    assert set(found["images"]) == {500}
    board = scoreboard({"defense": found})
    assert board.loc["defense-rule-marginal", "interval"] == "2 seeds"
    assert board.loc["defense-adversarial-pgd", "interval"] == "images, 1 seed"
    assert board.loc["defense-penalised-marginal", "verdict"] == "run missing"


# ---- claims


def test_ids_are_unique_and_say_their_chapter_and_version():
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids)
    for name, chapter in CHAPTERS.items():
        assert {claim.figure for claim in chapter.claims} <= {name}
    for claim in CLAIMS:
        assert claim.id.startswith(claim.figure)
        if claim.figure == "fig4" or "count" in claim.id:
            version = claim.version.replace("measured as the authors did", "as published")  # ids are older
            assert claim.id.endswith(version.replace("'", "").replace(" ", "-"))


def test_every_claim_says_where_the_paper_makes_it():
    for start, section in {
        "fig1": "Table 1",
        "fig4": "Fig. 5",
        "fig2-count": "blog",
        "fig2-svd": "section 8",
        "fig3-roughness-adversarial": "Fig. 7",
        "fig3-share-clearer": "appendix",
        "defense-rule-fgsm": "Table 2",
        "defense-rule-marginal": "blog",
        "defense-input": "blog",
    }.items():
        made = [claim for claim in CLAIMS if claim.id.startswith(start)]
        assert made
        assert all(section in claim.section for claim in made)


def test_only_chapters_with_evidence_are_on_the_board():
    none = pd.DataFrame({"variant": [], "state": [], "seed": [], "roughness": [], "share": []})
    board = scoreboard({"fig3": none})
    assert list(board.index) == [claim.id for claim in CLAIMS if claim.figure == "fig3"]
    assert list(board.columns) == COLUMNS
    assert set(board["verdict"]) == {"run missing"}


def test_table_1_as_it_was_published():
    assert [table1_value(f"lfc{r}", "train").value for r in (4, 8, 12, 16)] == [0.967, 0.979, 0.979, 0.984]
    assert [table1_value(f"lfc{r}", "test").value for r in (4, 8, 12, 16)] == [0.617, 0.715, 0.752, 0.771]
    assert "third party" in table1_value("lfc4", "test").source
    for variant, measure in (("hfc4", "test"), ("lfc5", "test"), ("lfc4", "valid"), ("vanilla", "test")):
        assert table1_value(variant, measure) is None


def test_table_2_as_far_as_it_was_published():
    cells = {
        ("vanilla", "none", 0.0, "fgsm"): 0.107,
        ("vanilla", "none", 0.0, "pgd"): 0.003,
        ("vanilla", "rule", 1.0, "fgsm"): 0.171,
        ("adversarial", "none", 0.0, "fgsm"): 0.435,
        ("adversarial", "none", 0.0, "pgd"): 0.403,
    }
    for variant in (*defense_recipes(), "batchnorm"):
        for defense in all_defenses():
            for attack in ("clean", "fgsm", "pgd", "unaware", "square"):
                found = table2_value(variant, *defense, attack, 0.03)
                assert (found.value if found else None) == cells.get((variant, *defense, attack))
                assert found is None or "third party" in found.source
                assert table2_value(variant, *defense, attack, 0.06) is None
