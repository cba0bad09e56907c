"""The chapter on the paper's title: which recipes are compared, and its statistics on tables made by hand."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from book.chapters import NOTEBOOKS
from hfclib._files import data_folder
from hfclib.conditions import PAPER_RADII
from hfclib.paper import generalisation
from hfclib.paper.generalisation import (
    GENERALISATION,
    compared,
    correlation,
    generalisation_recipes,
    generalisation_table,
    line,
    part_of,
    per_recipe,
    rule_recipes,
)
from hfclib.paper.intervals import MissingRunError
from hfclib.paper.presets import fig4_recipes
from hfclib.paper.scoreboard import published_scoreboard, scoreboard
from hfclib.runs.collect import Runs, published_runs
from tests.runs.foreign import shelve

CLAIMS = {claim.id: claim for claim in GENERALISATION.claims}
RULE = [name for name in CLAIMS if name.startswith("generalisation-rule")]
BANDS = [f"{band}{radius}" for band in "HL" for radius in PAPER_RADII]


@pytest.fixture(scope="module")
def by_network():
    return generalisation_table(published_runs(generalisation_recipes()))


@pytest.fixture(scope="module")
def published(by_network):
    return per_recipe(by_network)


def network(variant, seed=0, test=0.7, family="optimiser", part="compared", norm="none", plain="", **measures):
    """The rows of a table for one network; its accuracies on bands are .3 where they are not given."""
    values = {"train": 0.9, "test": test} | {name + how: 0.3 for name in BANDS for how in ("", " raw", " authors")}
    place = {"variant": variant, "family": family, "part": part, "norm": norm, "plain": plain, "seed": seed}
    return [place | {"measure": name, "value": value} for name, value in (values | measures).items()]


def table(*networks):
    return pd.DataFrame([row for rows in networks for row in rows])


# Ranks of the test accuracy 1, 2, 3, 4; of H4 1, 3, 2, 4, so the correlation is 1 - 6 x 2 / (4 x 15) = .8; of L4
# 4, 3, 1, 2: 1 - 6 x (9 + 1 + 4 + 4) / 60 = -.8; of the gap, train being .9, those of the test reversed.
FOUR = table(
    network("a", test=0.5, H4=0.1, L4=0.9, family="optimiser"),
    network("b", test=0.6, H4=0.4, L4=0.8, family="architecture"),
    network("c", test=0.7, H4=0.3, L4=0.2, family="architecture"),
    network("d", test=0.8, H4=0.5, L4=0.4, family="batch size"),
)


# ---- recipes


def test_which_recipes_are_compared(published):
    """Of the book's networks on CIFAR-10; what they train on decides, and then the test accuracy."""
    recipes = generalisation_recipes()
    for recipe in recipes.values():
        assert (recipe.data.dataset, recipe.data.train_band, recipe.data.planted) == ("cifar10", "x", 0)
        assert (recipe.data.labels, recipe.attack) == ("natural", None)
    parts = {variant: part_of(recipe) for variant, recipe in recipes.items()}
    assert {variant for variant, part in parts.items() if part == "rule"} == set(rule_recipes())
    rescaled = {variant for variant, part in parts.items() if part == "rescaled"}
    assert rescaled
    assert all(variant.startswith("authors_") for variant in rescaled)
    rows = compared(published)
    assert len(rows) == 28
    assert (rows["norm"] == "none").sum() == 22
    assert rows["test"].min() >= 0.4
    assert {"vanilla", "fullwidth", "sgd", "natural_plain", "narrow_batchnorm", "steps512"} <= set(rows.index)
    for left_out in ("adversarial", "lfc4", "hfc8", "louder2", "shuffled", "planted-vanilla", "authors_vanilla"):
        assert left_out not in rows.index
    assert not [variant for variant in rows.index if "mnist" in variant or variant in rule_recipes()]


def test_the_six_recipes_of_the_rule_are_those_of_two_presets():
    names = ("vanilla_16", "batchnorm_16", "vanilla_w32", "batchnorm_w32", "vanilla_cropped", "batchnorm_cropped")
    assert tuple(rule_recipes()) == names
    assert set(names) <= set(generalisation_recipes())
    assert not set(names) & set(generalisation_recipes("narrow"))
    # Under another name they would still be no part of the others.
    assert part_of(rule_recipes()["vanilla_w32"].with_(name="narrow-other")) == "rule"


def test_a_recipe_belongs_to_the_family_of_what_it_changes(published):
    families = compared(published)["family"]
    expected = {
        "vanilla": "vanilla, heuristics",
        "mixup": "vanilla, heuristics",
        "groupnorm": "normalisation",
        "fullwidth": "normalisation",
        "batchnorm_noaug": "normalisation",
        "natural": "fewer images",
        "narrow_batchnorm": "the schedule as stated",
        "steps512": "batch size",
        "adagrad": "optimiser",
        "vgg": "architecture",
    }
    assert {variant: families[variant] for variant in expected} == expected
    assert families.value_counts().to_dict() == {
        "vanilla, heuristics": 6,
        "batch size": 5,
        "normalisation": 4,
        "optimiser": 4,
        "the schedule as stated": 4,
        "architecture": 3,
        "fewer images": 2,
    }


# ---- the table


def test_accuracies_are_those_of_the_run_under_each_condition(random_run):
    runs = Runs(batchnorm=[random_run("batchnorm", 0)], vanilla=[random_run("vanilla", 0)])
    accuracies = generalisation_table(runs).set_index(["variant", "measure"])["value"]
    assert accuracies.index.is_unique
    assert set(accuracies.index.unique("measure")) == {
        "train",
        "test",
        *(band + how for band in BANDS for how in ("", " raw", " authors")),
    }
    final = runs["batchnorm"][0].final.set_index(["split", "band", "radius", "feed", "bn_stats"])["accuracy"]
    for measure, key in {
        "train": ("train", "x", -1, "raw", "running"),
        "test": ("test", "x", -1, "raw", "running"),
        "H4": ("test", "hfc", 4, "mean", "running"),
        "H8 raw": ("test", "hfc", 8, "raw", "running"),
        "H12 authors": ("test", "hfc", 12, "max", "batch"),
        "L16": ("test", "lfc", 16, "raw", "running"),
    }.items():
        assert accuracies["batchnorm", measure] == final[key], measure


def test_a_recipe_names_the_one_without_normalisation(published):
    assert published.loc[["batchnorm", "groupnorm", "batchnorm_noaug", "narrow_batchnorm"], "plain"].tolist() == [
        "vanilla",
        "vanilla",
        "vanilla_noaug",
        "narrow_vanilla",
    ]
    # These differ from the nearest one in the width, or in length and rate, too.
    assert (published.loc[["fullwidth", "natural", "vanilla"], "plain"] == "").all()


def test_means_are_over_seeds_and_weak_recipes_are_left_out():
    rows = per_recipe(
        table(
            network("a", 0, test=0.6, H4=0.2),
            network("a", 1, test=0.8, H4=0.3),
            network("weak", test=0.39),
            network("weak_rule", test=0.39, part="rule"),
        )
    )
    assert list(rows.index) == ["a", "weak_rule"]
    assert rows.loc["a", ["test", "H4", "gap"]].tolist() == pytest.approx([0.7, 0.25, 0.2])
    assert list(compared(rows).index) == ["a"]


# ---- statistics


def test_correlations_worked_out_by_hand():
    rows = per_recipe(FOUR)
    assert correlation(rows, "H4").mean == pytest.approx(0.8)
    assert correlation(rows, "L4").mean == pytest.approx(-0.8)
    assert correlation(rows, "H4", against="gap").mean == pytest.approx(-0.8)


def test_the_partial_correlation_is_that_of_the_residuals_of_ranks():
    train, test, hfc = np.random.default_rng(4).uniform(0.4, 1, size=(3, 12))
    hfc = hfc + test + train
    networks = [
        network(f"v{i}", test=values[1], train=values[0], H4=values[2])
        for i, values in enumerate(zip(train, test, hfc, strict=True))
    ]
    ranks = [stats.rankdata(values) for values in (train, test, hfc)]
    design = np.stack([np.ones(12), ranks[0]], axis=1)
    left = [values - design @ np.linalg.lstsq(design, values, rcond=None)[0] for values in ranks[1:]]
    estimate = correlation(per_recipe(table(*networks)), "H4", control="train")
    assert estimate.mean == pytest.approx(np.corrcoef(left)[0, 1])
    assert estimate.mean != pytest.approx(correlation(per_recipe(table(*networks)), "H4").mean, abs=0.01)


def test_without_each_family_the_smallest_first():
    """Ranks of H4 without the batch sizes: 1, 3, 2, the optimiser: 2, 1, 3, 4. Two recipes are too few."""
    five = pd.concat([FOUR, table(network("e", test=0.9, H4=0.6, family="batch size"))])
    estimates = generalisation.family_correlations(per_recipe(five), "H4")
    expected = {"batch size": 0.5, "optimiser": 0.8, "architecture": 1.0}
    assert {family: estimate.mean for family, estimate in estimates.items()} == pytest.approx(expected)
    assert list(estimates) == list(expected)
    assert list(generalisation.family_correlations(per_recipe(FOUR), "H4")) == ["optimiser", "batch size"]


def test_the_line_goes_through_networks_without_normalisation_only():
    """Points (.5, .1), (.6, .4), (.7, .3), (.8, .6): slope 1.4, intercept -.56, squared residuals .032, two degrees."""
    rows = per_recipe(
        table(
            *(network(f"p{i}", test=0.5 + 0.1 * i, H4=hfc) for i, hfc in enumerate((0.1, 0.4, 0.3, 0.6))),
            network("normed", test=0.9, H4=0.8, norm="batch", plain="p3"),
            network("alone", test=0.4, H4=0.2, norm="batch"),
        )
    )
    residuals, spread = line(rows, "H4")
    assert residuals.to_dict() == pytest.approx(
        {"p0": -0.04, "p1": 0.12, "p2": -0.12, "p3": 0.04, "normed": 0.1, "alone": 0.2}
    )
    assert spread == pytest.approx(np.sqrt(0.032 / 2))
    shown = generalisation.batchnorm_table(rows, (4,))
    assert shown["lead, r = 4"].tolist() == [".200", "\u2013", ""]
    assert shown["above the line, r = 4"].tolist() == [".100", ".200", ".126"]
    with pytest.raises(MissingRunError, match="fewer than 3 recipes without normalisation"):
        line(rows.drop(["p0", "p1"]), "H4")


# ---- claims


def estimates(found):
    return GENERALISATION.estimates(found)


def test_claims_are_over_the_recipes_that_are_compared():
    others = table(
        network("rescaled", test=0.9, H4=0.01, part="rescaled"),
        network("vanilla_16", test=0.95, H4=0.01, part="rule"),
        network("weak", test=0.2, H4=0.9),
    )
    for found in (FOUR, pd.concat([FOUR, others])):
        values = {name: estimate.mean for name, (estimate, _) in estimates(found).items()}
        assert values["generalisation-H4"] == pytest.approx(0.8)
        assert values["generalisation-L4"] == pytest.approx(0.8)  # its sign is reversed
        assert values["generalisation-gap"] == pytest.approx(0.8)  # reversed, and the gap is .9 less test
        assert {"generalisation-H8", "generalisation-H4-authors"}.isdisjoint(values)  # constant columns
        assert set(RULE).isdisjoint(values)
    assert estimates(FOUR)["generalisation-H4"][0].seeds == 4


def test_what_the_authors_measure_is_a_column_of_its_own():
    measured = table(
        *(network(f"v{i}", test=0.5 + 0.1 * i, **{"H4": 0.1 * i, "H4 authors": -0.1 * i, "H8": 0.1}) for i in range(4))
    )
    values = {name: estimate.mean for name, (estimate, _) in estimates(measured).items()}
    assert (values["generalisation-H4"], values["generalisation-H4-authors"]) == pytest.approx((1, -1))


def test_the_rule_is_judged_once_all_six_recipes_have_a_run():
    six = [
        network(variant, test=0.7 + 0.01 * place, H4=0.5 + 0.01 * place, L4=0.4 - 0.01 * place, part="rule")
        for place, variant in enumerate(rule_recipes())
    ]
    for count in (0, 3, 5):
        measured = pd.concat([FOUR, table(*six[:count])])
        assert set(RULE).isdisjoint(estimates(measured))
        board = scoreboard({"generalisation": measured})
        assert (board.loc[RULE, "verdict"] == "run missing").all()
    measured = pd.concat([FOUR, table(*six)])
    board = scoreboard({"generalisation": measured})
    assert (board.loc[RULE, "verdict"] == "reproduced").all()
    assert (board.loc[RULE, "seeds"] == 6).all()
    assert board.loc[RULE, "mean"].tolist() == pytest.approx([1, 1])
    assert board.at["generalisation-H4", "mean"] == pytest.approx(0.8)
    upside_down = measured.assign(value=measured["value"].where(measured["measure"] != "H4", 1 - measured["value"]))
    verdict = scoreboard({"generalisation": upside_down}).at["generalisation-rule-H4", "verdict"]
    assert verdict == "not reproduced in our set-up"


def test_runs_of_the_rule_are_found_at_both_presets(random_run, published_folder):
    """As soon as they are stored, `published_scoreboard` judges them, and the other claims stay as they are."""
    of_rule = tuple(recipe.hash for recipe in rule_recipes().values())
    (published_folder / "runs").mkdir(parents=True)
    for path in (*data_folder().iterdir(), *(data_folder() / "runs").iterdir()):
        if path.name != "runs" and not path.name.endswith(of_rule):
            (published_folder / path.relative_to(data_folder())).symlink_to(path)
    before = published_scoreboard(["generalisation"])
    for recipe in rule_recipes().values():
        shelve(published_folder / "runs", replace(random_run("vanilla", 0), recipe=recipe))
    after = published_scoreboard(["generalisation"])
    pd.testing.assert_frame_equal(before.drop(RULE), after.drop(RULE))
    # Six equal networks have no correlation; that they were looked at shows in the evidence.
    rows = per_recipe(GENERALISATION.published())
    assert list(rows.index[rows["part"] == "rule"]) == list(rule_recipes())


def test_without_runs_or_with_too_few_the_chapter_says_so():
    board = scoreboard({"generalisation": None})
    assert (board["verdict"] == "run missing").all()
    for found in (FOUR[FOUR["variant"].isin(["a", "b"])], table(network("weak", test=0.1))):
        assert estimates(found) == {}
        rows = per_recipe(found)
        own = compared(rows)
        assert (generalisation.correlation_table(own).head(4) == "too few recipes").all(axis=None)
        assert (generalisation.robustness_table(rows, [4]).iloc[:, 1:] == "too few recipes").all(axis=None)
        shown = generalisation.batchnorm_table(own)
        assert shown.filter(like="above").iloc[-1].tolist() == ["too few recipes"] * 2
        generalisation.scatter_figure(generalisation.scatter_rows(rows), 4).draw_without_rendering()


# ---- what is shown


def test_the_text_counts_the_recipes_that_are_one_network(by_network, published):
    single = (by_network.groupby("variant")["seed"].nunique()[compared(published).index] == 1).sum()
    assert f"{single} of them rest on one network" in (NOTEBOOKS / "generalisation.ipynb").read_text("utf-8")
    readme = (NOTEBOOKS.parent / "README.md").read_text("utf-8")
    assert f"{single} of them one network each" in " ".join(readme.split())


def test_the_tables_have_the_claims_numbers(published):
    board = published_scoreboard(["generalisation"])
    shown = generalisation.correlation_table(compared(published))
    assert shown.at["HFC, mean colour added", "r = 4"] == board.at["generalisation-H4", "ours"]
    assert shown.at["HFC, mean colour added", "r = 8"] == board.at["generalisation-H8", "ours"]
    assert shown.at["HFC as the authors measure it", "r = 4"] == board.at["generalisation-H4-authors", "ours"]
    mean = compared(published)["L8"].mean()
    assert float(shown.at["mean accuracy: LFC", "r = 8"]) == pytest.approx(mean, abs=0.0005)
    robust = generalisation.robustness_table(published, [4, 8])
    assert robust.at["all", "HFC, r = 4"] == board.at["generalisation-H4", "ours"]
    assert robust.at["all", "HFC, r = 8"] == board.at["generalisation-H8", "ours"]
    assert robust["recipes"].tolist() == ["28", "28", "28", "22", "19", "30", "", ""]
    lowest = generalisation.family_correlations(compared(published), "H4")
    family, estimate = next(iter(lowest.items()))
    text = robust.at["one family left out: smallest", "HFC, r = 4"]
    assert text.endswith(f"(without {family})")
    assert float(re.match(r"-?\.\d+", text)[0]) == pytest.approx(estimate.mean, abs=0.0005)


def test_the_figure_has_a_point_per_recipe_and_its_correlation_in_the_title(published):
    drawn = generalisation.scatter_rows(published)
    assert len(drawn) == 8 * published["part"].isin(["compared", "rule"]).sum()
    later = pd.concat([FOUR, table(network("vanilla_16", test=0.9, H4=0.1, part="rule", family="judged by the rule"))])
    figure = generalisation.scatter_figure(generalisation.scatter_rows(per_recipe(later)), 4)
    assert len(figure.axes) == 8
    first = figure.axes[0]
    assert first.get_title() == "HFC, r = 4: .800"  # over those that are compared
    assert figure.axes[2].get_title() == "HFC, r = 8"  # one value for all
    points = np.concatenate([part.get_xydata() for part in first.lines if part.get_linestyle() == "None"])
    assert sorted(map(tuple, points)) == [(0.5, 0.1), (0.6, 0.4), (0.7, 0.3), (0.8, 0.5), (0.9, 0.1)]
    bold = [ax.get_title() for ax in figure.axes if ax.title.get_fontweight() == "bold"]
    assert bold == ["HFC, r = 4: .800", "LFC, r = 4: -.800"]
    (legend,) = figure.legends
    assert "judged by the rule" in [text.get_text() for text in legend.get_texts()]


def test_smoke_and_narrow_have_networks_of_their_own():
    assert set(generalisation_recipes("smoke")) == set(fig4_recipes("smoke")) - {"adversarial"}
    assert {part_of(recipe) for recipe in generalisation_recipes("narrow").values()} == {"compared"}
