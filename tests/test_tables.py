import numpy as np
import pandas as pd
import pytest

from hfclib import figures, plots, reports, tables
from hfclib.evaluation import CURVE_COLUMNS, conditions
from hfclib.recipes import RADII
from hfclib.runs import Run


def run(panel: str, seed: int, tmp_path) -> Run:
    """A run whose every accuracy is drawn at random: what tables do with it must not depend on the values."""
    recipe = figures.fig4("smoke")[panel]
    norm = recipe.norm == "batch"
    rng = np.random.default_rng([seed, len(panel)])
    whole = [("train", "x", -1, "raw"), ("test", "x", -1, "raw")]
    keys = [(*one, stats) for one in whole for stats in (("running", "batch") if norm else ("running",))]
    keys += [("test", band, radius, feed, stats) for radius, band, feed, stats in conditions(RADII, norm)]
    final = pd.DataFrame([(*key, 200, rng.uniform()) for key in keys], columns=CURVE_COLUMNS)
    curves = pd.concat([final.assign(epoch=epoch) for epoch in (1, 2)], ignore_index=True)
    provenance = {"commits": ["abcdef012345"], "train_seconds": 50, "eval_seconds": 10, "device": "cpu, 2 thread(s)"}
    return Run(recipe, seed, curves, final, provenance, tmp_path)


@pytest.fixture
def runs(tmp_path):
    return {panel: [run(panel, seed, tmp_path) for seed in (0, 1)] for panel in ("vanilla", "batchnorm", "dropout")}


@pytest.mark.parametrize("feed", ["raw", "max", "mean"])
@pytest.mark.parametrize("bn_stats", ["running", "batch"])
@pytest.mark.parametrize("which", ["curves", "final"])
def test_every_condition_is_there_once_for_every_panel(runs, feed, bn_stats, which):
    rows = tables.select(tables.gather(runs, which), (4, 7, 16), feed, bn_stats)
    keys = ["panel", "seed", "measure"] + (["epoch"] if which == "curves" else [])
    assert not rows.duplicated(keys).any()
    assert set(rows["measure"]) == set(tables.measures((4, 7, 16)))
    assert len(rows) == 3 * 2 * 8 * (2 if which == "curves" else 1)


def test_the_values_are_those_of_the_run(runs):
    final = tables.gather(runs, "final")
    for panel, condition in (("batchnorm", "batch"), ("vanilla", "running")):
        stored = runs[panel][1].final
        expected = stored.query(f"band == 'hfc' and radius == 8 and feed == 'mean' and bn_stats == '{condition}'")
        rows = tables.select(final, [8], "mean", "batch")
        got = rows[(rows["panel"] == panel) & (rows["seed"] == 1) & (rows["measure"] == "H8")]
        assert got["accuracy"].item() == expected["accuracy"].item()


def test_an_lfc_with_the_mean_colour_is_the_raw_lfc(runs):
    final = tables.gather(runs, "final")
    raw, mean = (tables.select(final, [4], feed, "batch").query("measure == 'L4'") for feed in ("raw", "mean"))
    assert list(raw["accuracy"]) == list(mean["accuracy"])


def test_other_radii_say_under_which_condition_they_are_recorded(runs):
    rows = tables.select(tables.gather(runs, "final"), [7], "max", "batch")
    assert set(rows.query("radius == 7")["feed"]) == {"raw"}
    assert set(rows.query("radius == 7")["bn_stats"]) == {"running"}


def test_rows_under_attack_are_not_taken_for_plain_accuracy(runs):
    plain = {which: tables.select(tables.gather(runs, which), [4], "raw", "running") for which in ("curves", "final")}
    for one in runs["vanilla"] + runs["batchnorm"]:
        expected = one.test_accuracy()
        for which in plain:
            table = getattr(one, which)
            attacked = table[(table["split"] == "test") & (table["band"] == "x")].assign(feed="pgd20", accuracy=0.0)
            object.__setattr__(one, which, pd.concat([table, attacked], ignore_index=True))
        assert one.test_accuracy() == expected
    for which, rows in plain.items():
        again = tables.select(tables.gather(runs, which), [4], "raw", "running")
        pd.testing.assert_frame_equal(again.reset_index(drop=True), rows.reset_index(drop=True))


def test_bad_arguments_are_refused(runs):
    with pytest.raises(ValueError, match="curves or final"):
        tables.gather(runs, "first")
    with pytest.raises(ValueError, match="at least one run"):
        tables.gather({"vanilla": []})


def test_beside_the_paper_stand_mean_and_sd(runs):
    table = tables.beside_paper(tables.gather(runs, "final"), [4, 7], "raw", "running")
    values = [one.final.query("band == 'hfc' and radius == 4 and feed == 'raw'")["accuracy"].item()
              for one in runs["vanilla"]]  # fmt: skip
    expected = f"{tables.decimals(np.mean(values))}\u00a0±\u00a0{tables.decimals(np.std(values, ddof=1))}"
    assert table.loc["H4", ("Vanilla", "ours")] == expected
    assert table.loc["H4", ("Vanilla", "paper")] == ".10"
    assert table.loc["H7", ("Vanilla", "paper")] == "not published"


def test_one_seed_has_no_spread(runs):
    table = tables.beside_paper(tables.gather({"vanilla": runs["vanilla"][:1]}, "final"), [4], "raw", "running")
    assert "±" not in table.loc["H4", ("Vanilla", "ours")]


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, ".500"), (-0.0625, "-.062"), (1.0, "1.000"), (0.0, ".000"), (-0.0001, ".000")]
)
def test_decimals(value, text):
    assert tables.decimals(value) == text


def test_the_effect_is_batchnorm_less_vanilla(runs):
    final = tables.gather(runs, "final")
    effect = tables.batchnorm_effect(final, [4]).set_index(["bn_stats", "feed"])
    by_hand = [
        bn.final.query("band == 'hfc' and radius == 4 and feed == 'max' and bn_stats == 'batch'")["accuracy"].item()
        - plain.final.query("band == 'hfc' and radius == 4 and feed == 'max'")["accuracy"].item()
        for bn, plain in zip(runs["batchnorm"], runs["vanilla"], strict=True)
    ]
    assert effect.loc[("batch", "max"), "difference"] == pytest.approx(np.mean(by_hand))
    assert effect.loc[("batch", "max"), "share_left"] == pytest.approx(1)
    assert len(effect) == 6
    text = tables.batchnorm_effect_text(tables.batchnorm_effect(final, [4]))
    assert list(text.index) == [(s, f) for s in ("batch", "running") for f in ("max", "raw", "mean")]


def test_the_figure_has_a_panel_a_heuristic_and_decodes_its_lines(runs):
    figure = plots.fig4(tables.select(tables.gather(runs), (4, 7), "max", "batch"))
    assert [ax.get_title() for ax in figure.axes] == ["Vanilla", "Dropout", "BatchNorm"]
    assert all(len(ax.get_lines()) == 2 + 4 + 1 for ax in figure.axes)  # whole images, bands, chance
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "radius 4" in labels
    assert "radius 7 (raw, running)" in labels
    with pytest.raises(ValueError, match="empty"):
        plots.fig4(tables.gather(runs).iloc[:0])


def test_the_short_figure_shows_both_versions_with_the_means_of_the_runs(runs):
    final = tables.gather(runs, "final")
    left, right = plots.hfc_by_condition(final).axes
    assert (left.get_title(), right.get_title()) == ("As published", "Controlled")
    rows = tables.select(final, (4, 8, 12, 16), "mean", "running").query("panel == 'vanilla' and band == 'hfc'")
    shown = right.containers[0].lines[0].get_ydata()
    assert list(shown) == pytest.approx(list(rows.groupby("radius")["accuracy"].mean()))


def test_the_line_under_a_figure_says_where_it_comes_from(runs):
    rows = tables.select(tables.gather(runs), (4,), "raw", "running")
    ones = [one for panel in runs.values() for one in panel]
    html = reports.provenance("fig4", ones, plots.fig4(rows), rows).data
    for part in ("6 runs", "seeds 0, 1", "commit abcdef0", "6 minutes", "cpu, 2 thread(s)", 'download="fig4.csv"',
                 'download="fig4.svg"', "_sources/notebooks/fig4.ipynb"):  # fmt: skip
        assert part in html
    assert reports.picture(plots.fig4(rows)).data.startswith(b"\x89PNG")


def test_tables_are_shown_whole_escaped_and_linked():
    frame = pd.DataFrame({"text": ["x" * 90, "a < b"], "figure": ["fig4", "other"]})
    html = reports.table(frame, {"fig4": "fig4.html"}).data
    assert "x" * 90 in html
    assert "a &lt; b" in html
    assert '<a href="fig4.html">fig4</a>' in html


def test_the_story_names_what_is_left(runs):
    effect = tables.batchnorm_effect(tables.gather(runs, "final"), [4, 8])
    text = reports.batchnorm_story(effect, 2).data
    left = effect.query("radius == 4 and bn_stats == 'running' and feed == 'mean'")
    assert f"{left['share_left'].item():.0%} of it" in text
    assert "paper: .55" in text
