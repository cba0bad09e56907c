"""From runs to tables of accuracies under one condition, and numbers as text."""

import numpy as np
import pandas as pd
import pytest

from hfclib.evaluation import CURVE_COLUMNS, band_conditions
from hfclib.paper.fig1 import fig1_recipes, table1_figure, table1_rows
from hfclib.paper.fig4 import beside_paper, measures
from hfclib.paper.published import TABLE1_HFC
from hfclib.paper.show import show_figure
from hfclib.paper.tables import CONDITIONS, decimals, gather, select, with_interval
from hfclib.runs.store import Run
from hfclib.training.recipe import RADII


def test_every_condition_is_there_once_for_every_network(runs):
    for which in ("curves", "final"):
        table = gather(runs, which)
        keys = ["variant", "seed", "measure"] + (["epoch"] if which == "curves" else [])
        for feed in ("raw", "max", "mean"):
            for bn_stats in ("running", "batch"):
                rows = select(table, (4, 7, 16), feed, bn_stats)
                assert not rows.duplicated(keys).any()
                assert set(rows["measure"]) == set(measures((4, 7, 16)))
                assert len(rows) == 3 * 2 * 8 * (2 if which == "curves" else 1)


def test_the_values_are_those_of_the_run(runs):
    final = gather(runs, "final")
    for variant, condition in (("batchnorm", "batch"), ("vanilla", "running")):
        stored = runs[variant][1].final
        expected = stored.query(f"band == 'hfc' and radius == 8 and feed == 'mean' and bn_stats == '{condition}'")
        rows = select(final, [8], "mean", "batch")
        got = rows[(rows["variant"] == variant) & (rows["seed"] == 1) & (rows["measure"] == "H8")]
        assert got["accuracy"].item() == expected["accuracy"].item()


def test_an_lfc_with_the_mean_colour_is_the_raw_lfc(runs):
    final = gather(runs, "final")
    raw, mean = (select(final, [4], feed, "batch").query("measure == 'L4'") for feed in ("raw", "mean"))
    assert list(raw["accuracy"]) == list(mean["accuracy"])


def test_the_authors_feed_is_raw_for_adversarial_training_and_divided_by_the_maximum_else(random_run):
    ones = {variant: [random_run(variant, 0)] for variant in ("vanilla", "adversarial")}
    final = gather(ones, "final")
    rows = select(final, [8], *CONDITIONS["measured as the authors did"]).query("band != 'x'")
    assert {variant: set(some["feed"]) for variant, some in rows.groupby("variant")} == {
        "vanilla": {"max"},
        "adversarial": {"raw"},
    }
    only = select(gather({"adversarial": ones["adversarial"]}, "final"), [8], "authors", "batch")
    assert set(only["feed"]) == {"raw"}


def test_other_radii_say_under_which_condition_they_are_recorded(runs):
    rows = select(gather(runs, "final"), [7], "max", "batch")
    assert set(rows.query("radius == 7")["feed"]) == {"raw"}
    assert set(rows.query("radius == 7")["bn_stats"]) == {"running"}
    final = gather(runs, "final")
    for condition, suffix in ((("mean", "running"), " (raw, running)"), (("raw", "running"), "")):
        found = beside_paper(final, [4, 7], *condition)
        assert list(found.index) == ["train", "test", "L4", f"L7{suffix}", "H4", f"H7{suffix}"]


def test_rows_under_attack_are_not_taken_for_plain_accuracy(runs):
    plain = {which: select(gather(runs, which), [4], "raw", "running") for which in ("curves", "final")}
    for one in runs["vanilla"] + runs["batchnorm"]:
        expected = one.test_accuracy()
        for which in plain:
            table = getattr(one, which)
            attacked = table[(table["split"] == "test") & (table["band"] == "x")].assign(feed="pgd20", accuracy=0.0)
            object.__setattr__(one, which, pd.concat([table, attacked], ignore_index=True))
        assert one.test_accuracy() == expected
    for which, rows in plain.items():
        again = select(gather(runs, which), [4], "raw", "running")
        pd.testing.assert_frame_equal(again.reset_index(drop=True), rows.reset_index(drop=True))


def test_bands_of_training_images_are_not_taken_for_those_of_test_images(runs):
    plain = {which: select(gather(runs, which), [4], "mean", "batch") for which in ("curves", "final")}
    for one in runs["vanilla"] + runs["batchnorm"]:
        for which in plain:
            table = getattr(one, which)
            bands = table[(table["band"] != "x") & (table["feed"] == "raw")].assign(split="train", accuracy=0.0)
            object.__setattr__(one, which, pd.concat([table, bands], ignore_index=True))
    for which, rows in plain.items():
        again = select(gather(runs, which), [4], "mean", "batch")
        pd.testing.assert_frame_equal(again.reset_index(drop=True), rows.reset_index(drop=True))


def test_bad_arguments_are_refused(runs):
    with pytest.raises(ValueError, match="curves or final"):
        gather(runs, "first")
    with pytest.raises(ValueError, match="at least one run"):
        gather({"vanilla": []})


def test_numbers_as_text():
    expected = {0.5: ".500", -0.0625: "-.062", 1.0: "1.000", 0.0: ".000", -0.0001: ".000"}
    assert {value: decimals(value) for value in expected} == expected
    assert with_interval(0.5, -0.1, 1.1) == ".500\u00a0[-.100,\u00a01.100]"
    assert with_interval(0.5, -float("inf"), float("inf")) == ".500"


# ---- Table 1


def band_run(variant: str, seed: int, tmp_path, preset="smoke") -> Run:
    """A run of a network trained on one band, every accuracy drawn at random."""
    recipe = fig1_recipes(preset)[variant]
    rng = np.random.default_rng([seed, len(variant), recipe.train_radius])
    own = (recipe.train_band, recipe.train_radius, recipe.rescale)
    keys = [("train", *own, "running"), ("test", "x", -1, "raw", "running"), ("test", *own, "running")]
    keys += [("test", band, radius, feed, stats) for radius, band, feed, stats in band_conditions(RADII, False)]
    final = pd.DataFrame([(*key, 200, rng.uniform()) for key in keys], columns=CURVE_COLUMNS)
    return Run(recipe, seed, final.assign(epoch=1), final, {}, tmp_path)


BANDS = ("lfc4", "lfc16", "hfc4", "hfc16")


@pytest.fixture
def band_runs(tmp_path):
    return {variant: [band_run(variant, seed, tmp_path) for seed in (0, 1, 2)] for variant in BANDS}


def first(run: Run, split: str, band: str) -> float:
    """The first accuracy of a run on a split and band: measured on what the network was trained on, or whole images."""
    return run.final.query(f"split == '{split}' and band == '{band}'")["accuracy"].iloc[0]


def own_band(run: Run) -> float:
    rows = run.final.query(f"split == 'test' and band == '{run.recipe.train_band}'")
    return rows[rows["feed"] == run.recipe.rescale]["accuracy"].iloc[0]


def test_table_1_has_mean_and_sd_of_the_runs_beside_the_paper(band_runs):
    table = table1_rows(gather(band_runs, "final"))
    assert list(table.index) == [("LFC", 4), ("LFC", 16), ("HFC", 4), ("HFC", 16)]
    for variant, row in zip(BANDS, table.itertuples(index=False), strict=True):
        columns = dict(zip(table.columns, row, strict=True))
        ones = band_runs[variant]
        for column, values in (
            ("training images", [first(one, "train", variant[:3]) for one in ones]),
            ("original test images", [first(one, "test", "x") for one in ones]),
            ("same band of test images", [own_band(one) for one in ones]),
        ):
            mean, sd = decimals(np.mean(values)), decimals(np.std(values, ddof=1))
            assert columns[column] == f"{mean}\u00a0±\u00a0{sd}"
    assert table["training images, paper"].tolist() == [".967", ".984", *[TABLE1_HFC["train"]] * 2]
    assert table["original test images, paper"].tolist() == [".617", ".771", *[TABLE1_HFC["test"]] * 2]


@pytest.mark.parametrize("preset", ["smoke", "authors"])
def test_table_1_of_one_seed_has_no_spread(tmp_path, preset):
    one = band_run("hfc8", 0, tmp_path, preset)
    table = table1_rows(gather({"hfc8": [one]}, "final"))
    assert table.loc[("HFC", 8), "same band of test images"] == decimals(own_band(one))
    assert not table.map(lambda cell: "±" in cell).any(axis=None)


def test_the_figure_of_table_1_shows_the_means_of_the_runs_and_the_papers_values(band_runs):
    figure = table1_figure(gather(band_runs, "final"))
    (ax,) = figure.axes
    assert ax.get_xlabel() == "Radius (DFT bins)"
    assert ax.get_ylabel() == "Test accuracy (share of images)"
    on_x, on_x_of_hfc, on_own, on_own_of_hfc = (container.lines[0] for container in ax.containers)
    for line, variants, measure in (
        (on_x, BANDS[:2], lambda one: first(one, "test", "x")),
        (on_x_of_hfc, BANDS[2:], lambda one: first(one, "test", "x")),
        (on_own, BANDS[:2], own_band),
        (on_own_of_hfc, BANDS[2:], own_band),
    ):
        assert list(line.get_xdata()) == [4, 16]
        expected = [np.mean([measure(one) for one in band_runs[variant]]) for variant in variants]
        assert list(line.get_ydata()) == pytest.approx(expected)
    assert (on_x.get_linestyle(), on_own.get_linestyle()) == ("-", "--")
    diamonds = next(line for line in ax.get_lines() if line.get_marker() == "D")
    assert list(diamonds.get_ydata()) == [0.617, 0.715, 0.752, 0.771]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == 4 + 2
    assert "trained on the HFC, tested on the same band of test images" in labels


@pytest.mark.parametrize("preset", ["smoke", "authors"])
def test_the_figure_of_table_1_with_a_single_network(tmp_path, preset):
    one = band_run("hfc8", 0, tmp_path, preset)
    figure = table1_figure(gather({"hfc8": [one]}, "final"))
    assert [list(container.lines[0].get_ydata()) for container in figure.axes[0].containers] == [
        [pytest.approx(first(one, "test", "x"))],
        [pytest.approx(own_band(one))],
    ]
    assert show_figure(figure).data.startswith(b"\x89PNG")
