import base64
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from hfclib.evaluation import CURVE_COLUMNS, band_conditions
from hfclib.paper.fig1 import fig1_recipes, table1_figure, table1_rows
from hfclib.paper.fig2 import fig2_recipes
from hfclib.paper.fig3 import fig3_recipes
from hfclib.paper.fig4 import (
    batchnorm_effect,
    batchnorm_effect_text,
    batchnorm_story,
    beside_paper,
    curves_figure,
    hfc_by_condition,
    measures,
)
from hfclib.paper.presets import fig4_recipes
from hfclib.paper.published import TABLE1_HFC
from hfclib.paper.show import show_figure, show_missing, show_provenance, show_table
from hfclib.paper.tables import CONDITIONS, decimals, gather, select
from hfclib.runs.store import Run
from hfclib.training.recipe import RADII


def run(variant: str, seed: int, tmp_path) -> Run:
    """A run whose every accuracy is drawn at random: what tables do with it must not depend on the values."""
    recipe = fig4_recipes("smoke")[variant]
    norm = recipe.norm == "batch"
    rng = np.random.default_rng([seed, len(variant)])
    whole = [("train", "x", -1, "raw"), ("test", "x", -1, "raw")]
    keys = [(*one, stats) for one in whole for stats in (("running", "batch") if norm else ("running",))]
    keys += [("test", band, radius, feed, stats) for radius, band, feed, stats in band_conditions(RADII, norm)]
    final = pd.DataFrame([(*key, 200, rng.uniform()) for key in keys], columns=CURVE_COLUMNS)
    curves = pd.concat([final.assign(epoch=epoch) for epoch in (1, 2)], ignore_index=True)
    provenance = {"commits": ["abcdef012345"], "train_seconds": 50, "eval_seconds": 10, "device": "cpu, 2 thread(s)"}
    return Run(recipe, seed, curves, final, provenance, tmp_path)


@pytest.fixture
def runs(tmp_path):
    return {
        variant: [run(variant, seed, tmp_path) for seed in (0, 1)] for variant in ("vanilla", "batchnorm", "dropout")
    }


@pytest.mark.parametrize("feed", ["raw", "max", "mean"])
@pytest.mark.parametrize("bn_stats", ["running", "batch"])
@pytest.mark.parametrize("which", ["curves", "final"])
def test_every_condition_is_there_once_for_every_panel(runs, feed, bn_stats, which):
    rows = select(gather(runs, which), (4, 7, 16), feed, bn_stats)
    keys = ["variant", "seed", "measure"] + (["epoch"] if which == "curves" else [])
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


def test_the_authors_feed_is_raw_for_adversarial_training_and_divided_by_the_maximum_else(tmp_path):
    ones = {variant: [run(variant, 0, tmp_path)] for variant in ("vanilla", "adversarial")}
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


def test_beside_the_paper_stand_mean_and_sd(runs):
    table = beside_paper(gather(runs, "final"), [4, 7], "raw", "running")
    values = [
        one.final.query("band == 'hfc' and radius == 4 and feed == 'raw'")["accuracy"].item() for one in runs["vanilla"]
    ]
    expected = f"{decimals(np.mean(values))}\u00a0±\u00a0{decimals(np.std(values, ddof=1))}"
    assert table.loc["H4", ("Vanilla", "ours")] == expected
    assert table.loc["H4", ("Vanilla", "paper")] == ".10"
    assert table.loc["H7", ("Vanilla", "paper")] == "not published"


def test_one_seed_has_no_spread(runs):
    table = beside_paper(gather({"vanilla": runs["vanilla"][:1]}, "final"), [4], "raw", "running")
    assert "±" not in table.loc["H4", ("Vanilla", "ours")]


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, ".500"), (-0.0625, "-.062"), (1.0, "1.000"), (0.0, ".000"), (-0.0001, ".000")]
)
def test_decimals(value, text):
    assert decimals(value) == text


def test_the_effect_is_batchnorm_less_vanilla(runs):
    final = gather(runs, "final")
    effect = batchnorm_effect(final, [4]).set_index(["bn_stats", "feed"])
    by_hand = [
        bn.final.query("band == 'hfc' and radius == 4 and feed == 'max' and bn_stats == 'batch'")["accuracy"].item()
        - plain.final.query("band == 'hfc' and radius == 4 and feed == 'max'")["accuracy"].item()
        for bn, plain in zip(runs["batchnorm"], runs["vanilla"], strict=True)
    ]
    assert effect.loc[("batch", "max"), "difference"] == pytest.approx(np.mean(by_hand))
    assert effect.loc[("batch", "max"), "share_left"] == pytest.approx(1)
    assert len(effect) == 6
    text = batchnorm_effect_text(batchnorm_effect(final, [4]))
    assert list(text.index) == [(s, f) for s in ("batch", "running") for f in ("max", "raw", "mean")]


def test_the_figure_has_a_panel_a_heuristic_and_decodes_its_lines(runs):
    figure = curves_figure(select(gather(runs), (4, 7), "max", "batch"))
    *variants, free = figure.axes
    assert [ax.get_title() for ax in variants] == ["Vanilla", "Dropout", "BatchNorm"]
    assert all(len(ax.get_lines()) == 2 + 4 + 1 for ax in variants)  # whole images, bands, chance
    assert not figure.legends  # it stands where a variant is free
    labels = [text.get_text() for text in free.get_legend().get_texts()]
    assert "radius 4" in labels
    assert "radius 7 (raw, running)" in labels
    for radii, feed, bn_stats, expected in (
        ((4, 7), "mean", "running", "radius 7 (raw, running)"),
        ((7,), "max", "batch", "radius 7 (raw, running)"),
        ((4, 7), "raw", "running", "radius 7"),
    ):
        shown = curves_figure(select(gather(runs), radii, feed, bn_stats))
        assert expected in [text.get_text() for text in shown.axes[-1].get_legend().get_texts()]
    pair = curves_figure(select(gather({name: runs[name] for name in ("vanilla", "dropout")}), (4, 7), "max", "batch"))
    assert len(pair.axes) == 2
    assert [text.get_text() for text in pair.legends[0].get_texts()] == labels
    with pytest.raises(ValueError, match="empty"):
        curves_figure(gather(runs).iloc[:0])


def test_the_short_figure_shows_both_versions_with_the_means_of_the_runs(runs):
    final = gather(runs, "final")
    left, right = hfc_by_condition(final).axes
    assert (left.get_title(), right.get_title()) == ("Measured as the authors did", "Controlled")
    rows = select(final, (4, 8, 12, 16), "mean", "running").query("variant == 'vanilla' and band == 'hfc'")
    shown = right.containers[0].lines[0].get_ydata()
    assert list(shown) == pytest.approx(list(rows.groupby("radius")["accuracy"].mean()))


def test_the_line_under_a_figure_says_where_it_comes_from(runs):
    rows = select(gather(runs), (4,), "raw", "running")
    ones = [one for variant in runs.values() for one in variant]
    html = show_provenance("fig4-controlled", ones, curves_figure(rows), rows).data
    for part in (
        "6 runs",
        "seeds 0, 1",
        "commit abcdef0",
        "6 minutes",
        "cpu, 2 thread(s)",
        'download="fig4-controlled.csv"',
        'download="fig4-controlled.svg"',
        "_sources/notebooks/fig4.ipynb",
    ):
        assert part in html
    assert show_figure(curves_figure(rows)).data.startswith(b"\x89PNG")


def test_the_line_under_a_figure_of_images_names_no_run():
    html = show_provenance("frog", None, Figure(), page="book/your-images.md").data
    assert "Drawn from the embedded test set" in html
    assert "commit" not in html
    assert "CSV" not in html
    assert '<a href="../_sources/book/your-images.md">page</a>' in html
    assert 'download="frog.svg"' in html


def test_the_line_under_a_figure_without_its_runs_says_so():
    html = show_provenance("fig3-five", [], Figure(), pd.DataFrame()).data
    assert "Its runs are not stored." in html
    assert "embedded" not in html


def test_the_index_of_a_table_goes_into_its_csv(runs):
    table = pd.DataFrame({"vanilla": [7]}, index=pd.Index(["cat"], name="class"))
    html = show_provenance("fig2-classes", runs["vanilla"][:1], Figure(), table).data
    content = base64.b64decode(re.search(r'text/csv;base64,([^"]+)', html).group(1)).decode()
    assert content == "class,vanilla\ncat,7\n"
    assert "1 run, preset" in html


def test_tables_are_shown_whole_escaped_and_linked():
    frame = pd.DataFrame({"text": ["x" * 90, "a < b"], "figure": ["fig4", "other"]})
    html = show_table(frame, {"fig4": "fig4.html"}).data
    assert "x" * 90 in html
    assert "a &lt; b" in html
    assert '<a href="fig4.html">fig4</a>' in html


def test_networks_that_are_not_shown_are_named():
    wanted = fig2_recipes("smoke")
    said = show_missing(wanted, {"vanilla": 1}).data
    assert "Not shown" in said
    assert "smoke-batchnorm, smoke-fullwidth" in said
    assert "smoke-vanilla" not in said
    assert show_missing(wanted, dict.fromkeys(wanted)) is None


def test_networks_that_are_shown_with_fewer_seeds_are_named():
    wanted = fig3_recipes("smoke")
    runs = {variant: [SimpleNamespace(seed=seed) for seed in (0, 2, 1)] for variant in wanted}
    assert show_missing(wanted, runs) is None
    runs |= {"adversarial": runs["adversarial"][:2], "adversarial5": runs["adversarial5"][:1]}
    del runs["vanilla5"]
    said = show_missing(wanted, runs).data
    first, second = said.split(". ")
    assert first == "Not shown, since not trained and published yet: smoke-vanilla5"
    assert second.endswith("these seeds only, for the same reason: smoke-adversarial (0, 2), smoke-adversarial5 (0).")
    alone = show_missing({variant: wanted[variant] for variant in runs}, runs).data
    assert alone.startswith("Shown with these seeds only, since others are not trained and published yet: smoke-adv")


def test_the_story_names_what_is_left(runs):
    effect = batchnorm_effect(gather(runs, "final"), [4, 8])
    text = batchnorm_story(effect.assign(low=0.1, high=0.3), 2).data
    left = effect.query("radius == 4 and bn_stats == 'running' and feed == 'mean'")
    assert f"{left['share_left'].item():.0%} of it" in text
    assert "paper: .55" in text
    single = batchnorm_story(effect.assign(low=-np.inf, high=np.inf), 1).data
    assert f"{left['share_left'].item():.0%} of it" in single
    none = batchnorm_story(effect.assign(low=-0.1, high=0.3), 2).data
    assert none.count("added, an interval that holds 0.") == 2
    assert "% of it" not in none
    nothing = batchnorm_story(effect.assign(share_left=np.nan, low=0.1, high=0.3), 2).data
    assert nothing.count("mean colour added.") == 2


@pytest.mark.filterwarnings("error")
def test_a_share_of_nothing_is_no_number(runs):
    final = gather(runs, "final").assign(accuracy=0.5)
    assert batchnorm_effect(final, [4])["share_left"].isna().all()


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
