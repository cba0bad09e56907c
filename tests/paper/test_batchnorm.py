"""The chapter on BatchNorm: what is fed, what is stored, and the claims on tables made by hand."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from hfclib._files import data_folder
from hfclib.conditions import PAPER_RADII
from hfclib.paper import batch_statistics, batchnorm
from hfclib.paper.batch_statistics import COUNTS
from hfclib.paper.batchnorm import BATCHNORM, LINES, all_recipes, fig6_recipes
from hfclib.paper.intervals import MissingRunError
from hfclib.paper.tables import decimals, with_interval
from hfclib.runs.collect import Runs, stored_runs
from hfclib.runs.store import RunError
from tests.paper.tidy import tidy, welch

CLAIMS = {claim.id: claim for claim in BATCHNORM.claims}


@pytest.fixture(scope="module")
def runs():
    recipes = all_recipes()
    return stored_runs(recipes, (0, 1, 2), optional=recipes)


@pytest.fixture(scope="module")
def chapter_table(runs):
    return batch_statistics.table(runs)


def row(variant, statistics, accuracy, seed, *, band="hfc", radius=4, feed="max"):
    values = {"part": "feeds", "variant": variant, "bn_stats": statistics, "band": band, "radius": radius}
    return values | {"split": "test", "feed": feed, "value": accuracy, "seed": seed}


# ---- what a network is fed


def test_the_hfc_is_scaled_by_itself_with_the_mean_and_in_the_image():
    images = torch.rand(4, 3, 8, 8)
    low, high = images / 4, images * 3 / 4
    usual = {"part": "scaled", "feed": "raw", "band": "hfc", "scale": 2}
    assert torch.equal(batch_statistics._fed(usual, images, low, high), 2 * high)
    assert torch.equal(batch_statistics._fed(usual | {"band": "sum"}, images, low, high), low + 2 * high)
    mean = batch_statistics._fed(usual | {"feed": "mean"}, images, low, high) - 2 * high
    assert mean[0, :, 0, 0].tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)


def test_a_mixed_batch_is_half_clean_images_and_none_beside_its_own_hfc():
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 2, 2)
    mixed = {"part": "mixed", "feed": "raw", "band": "hfc", "scale": 1}
    fed = batch_statistics._fed(mixed, images, images, images + 10)
    assert fed[:, 0, 0, 0].tolist() == [3, 10, 4, 11, 5, 12, 0, 13, 1, 14, 2, 15]


# ---- what is stored


def test_every_stored_table_is_whole_and_says_where_it_comes_from(runs):
    measured = 0
    for variant, ones in runs.items():
        for run in ones:
            every = batch_statistics.conditions(run, variant)  # of seeds that are not drawn, what the claims need
            wanted = pd.DataFrame([row for row in every if run.seed <= 2 or row["part"] == "feeds"])
            rows = batch_statistics.stored(run)
            assert (rows is None) == wanted.empty, run.path.name
            if rows is not None:
                measured += 1
                pd.testing.assert_frame_equal(rows[list(wanted)], wanted)
                assert (rows["images"] == rows["part"].map(COUNTS)).all()
                assert rows["accuracy"].between(0, 1).all()
                origin = json.loads((data_folder() / "batchnorm" / f"{run.path.name}.json").read_text())
                commits = [origin["commit"], origin.get("added", origin)["commit"]]
                assert all(len(commit) == 40 for commit in commits), commits
    assert measured >= 13  # three seeds of four networks, and adversarial training


@pytest.mark.slow  # a notebook measures one of them again
def test_stored_rows_are_measured_again_on_300_images(runs):
    run = runs["mixup"][0]
    stored, again = batch_statistics.stored(run), batch_statistics.measure(run, "mixup", {"feeds": 300})
    assert len(again) == len(stored) == 1 + 2 * len(PAPER_RADII)
    assert (again["images"] == 300).all()
    # Four standard errors of a share of 300 images, at most.
    assert again["accuracy"].to_numpy() == pytest.approx(stored["accuracy"].to_numpy(), abs=0.116)


def test_a_damaged_table_and_one_of_other_weights_or_another_version(runs, published_folder):
    run, folder = runs["mixup"][0], published_folder / "batchnorm"
    folder.mkdir(parents=True)
    for ending in ("csv", "json"):
        shutil.copy(data_folder() / "batchnorm" / f"{run.path.name}.{ending}", folder)
    table, origin = (folder / f"{run.path.name}.{ending}" for ending in ("csv", "json"))
    assert len(batch_statistics.stored(run)) == 9  # without a version, which is the first
    known = json.loads(origin.read_text())
    assert "evaluation" not in known
    for version, there in ((1, True), (2, False)):
        origin.write_text(json.dumps(known | {"evaluation": version}))
        assert (batch_statistics.stored(run) is not None) == there
    origin.write_text(json.dumps(known))
    table.write_text(table.read_text().replace("0.", "0.9", 1))
    with pytest.raises(RunError, match=r"csv is damaged: delete it"):
        batch_statistics.stored(run)
    origin.write_text(json.dumps(json.loads(origin.read_text()) | {"weights": "0" * 64}))
    assert batch_statistics.stored(run) is None


# ---- claims


def test_the_claims_on_a_table_made_by_hand():
    values = {("batchnorm", "batch"): (0.7, 0.6), ("vanilla", "matched"): (0.5, 0.5)}
    rows = [row(*network, one, seed) for network, ones in values.items() for seed, one in enumerate(ones)]
    rows += [row("vanilla", "matched", 0.9, 0) | {"part": "scaled"}, row("batchnorm", "batch", 0.9, 2)]
    measured = tidy(rows)
    left = BATCHNORM.estimate(CLAIMS["batchnorm-left-H4"], measured)
    assert (left.mean, left.seeds) == (pytest.approx(0.15), 2)
    assert left.low == pytest.approx(0.15 - 12.7062 * 0.05, abs=1e-4)  # Student's t, one degree of freedom
    for name in set(CLAIMS) - {"batchnorm-left-H4"}:
        with pytest.raises(MissingRunError):
            BATCHNORM.estimate(CLAIMS[name], measured)


def test_runs_that_are_published_later_give_their_claims_a_value():
    gains = {
        "lfc4": (0.60, 0.58),
        "batchnorm_lfc4": (0.61, 0.60),
        "lfc16": (0.75, 0.70),
        "batchnorm_lfc16": (0.81, 0.78),
    }
    rows = [row("groupnorm", "running", 0.4, 0), row("vanilla", "running", 0.2, 0)]
    for variant, (x, low) in gains.items():
        rows.append(row(variant, "running", x, 0, band="x", radius=None, feed="raw"))
        rows.append(row(variant, "running", low, 0, band="lfc", radius=int(variant.split("lfc")[1]), feed="range"))
    standardised = {"vanilla": 0.3, "batchnorm": 0.4, "louder4": 0.5, "batchnorm_louder4": 0.55}
    for variant, accuracy in standardised.items():
        statistics = "batch" if "batchnorm" in variant else "matched"
        rows.append(row(variant, statistics, accuracy, 0, band="hfc", radius=8, feed="max"))
    chapter_table = tidy(rows)
    expected = {"groupnorm-H4": 0.2, "lfc-x": 0.05, "lfc-xl": 0.06}
    means = {name: BATCHNORM.estimate(CLAIMS[f"batchnorm-{name}"], chapter_table).mean for name in expected}
    assert means == pytest.approx(expected)
    for variant, accuracy in {"vanilla": 0.25, "batchnorm": 0.28}.items():
        rows.append(row(variant, "running", accuracy, 0, band="hfc", radius=8, feed="mean"))
    rows.append(row("louder4", "matched", 0.9, 1, band="hfc", radius=8, feed="max"))
    draws = tidy(rows).assign(draw=lambda table: table["variant"])  # whose seeds make no pairs, so it counts as well
    table = batchnorm.amplified_table(draws)
    helped, controlled = "max feed, test-batch statistics for both", "mean colour added"
    assert list(table.index) == [(helped, 1), (helped, 4), (controlled, 1)]  # no pair is stored at 2
    assert table.loc[(helped, 1)].tolist() == [".30", ".40", ".100", 1]
    assert table.loc[(helped, 4)].tolist() == [".70", ".55", "-.150", 1]
    assert table.loc[(controlled, 1)].tolist() == [".25", ".28", ".030", 1]


def trained_on_the_lfc(variant, seed, whole, low, early):
    """A stored run with the rows that Fig. 6 reads, and others that are wrong."""
    recipe = fig6_recipes()[variant]
    own = {"split": "test", "band": "lfc", "radius": recipe.data.train_radius, "feed": "range", "bn_stats": "running"}
    image = own | {"band": "x", "radius": -1, "feed": "raw"}
    # The last is recorded twice where the band is divided by its maximum, which is one of the feeds too.
    wrong = {"radius": recipe.data.train_radius + 4}, {"feed": "raw"}, {"split": "train"}, {}
    final = [image | {"accuracy": whole}, own | {"accuracy": low}, *(own | one | {"accuracy": 0.99} for one in wrong)]
    curves = [
        own | {"split": "train", "epoch": epoch, "accuracy": early if epoch == 4 else 0.99} for epoch in range(1, 17)
    ]
    normed = recipe.model.norm == "batch"
    if normed:  # by the test batch .1 more of whole images, and nothing of the rest
        final.append(image | {"bn_stats": "batch", "accuracy": whole + 0.1})
    tables = {"final": pd.DataFrame(final), "curves": pd.DataFrame(curves)}
    return SimpleNamespace(seed=seed, recipe=recipe, batch_norm=normed, **tables)


def test_the_table_of_fig_6_has_the_gains_of_the_networks_that_are_stored():
    """Both kinds start from other weights, so that seeds make no pairs."""
    plain, normed = [(0.60, 0.58, 0.4), (0.62, 0.60, 0.4)], [(0.70, 0.63, 0.5), (0.74, 0.65, 0.6), (0.99, 0.99, 0.98)]
    runs = {
        "lfc4": [trained_on_the_lfc("lfc4", seed, *values) for seed, values in enumerate(plain)],
        "batchnorm_lfc4": [trained_on_the_lfc("batchnorm_lfc4", seed, *values) for seed, values in enumerate(normed)],
        "lfc8": [trained_on_the_lfc("lfc8", 0, 0.9, 0.9, 0.9)],  # without the other kind
    }
    table = batchnorm.fig6_table(runs)
    kinds = ["whole images", "the LFC", "the LFC of training images, early"]
    assert table.xs("running", level=1).index.tolist() == [(kind, 4) for kind in kinds]
    assert table.loc[("whole images", "batch", 4)].tolist()[:2] == [".610", ".910"]
    assert len(table) == 4
    for measured, *samples in zip(kinds, zip(*plain, strict=True), zip(*normed, strict=True), strict=True):
        gain = welch(samples[1], samples[0])
        means = [decimals(np.mean(values)) for values in samples]
        expected = [*means, with_interval(gain.mean, gain.low, gain.high), 2]
        assert table.loc[(measured, "running", 4)].tolist() == expected, measured
    assert batchnorm.fig6_table(Runs()).empty
    runs |= {"lfc16": [trained_on_the_lfc("lfc16", seed, 0.5, 0.5, 0.5) for seed in (0, 1)]}
    runs |= {"batchnorm_lfc16": [trained_on_the_lfc("batchnorm_lfc16", seed, 0.9, 0.5, 0.5) for seed in (0, 1)]}
    more = batchnorm.fig6_table(runs).loc[("whole images", "running", "16 less 4")]
    gain = welch([0.9 - 0.70, 0.9 - 0.74], [0.5 - 0.60, 0.5 - 0.62])
    assert more.tolist() == ["", "", with_interval(gain.mean, gain.low, gain.high), 2]


def test_the_lead_under_each_control_is_welchs_over_all_seeds_of_each_network():
    values = {
        ("batchnorm", "batch", "hfc", "max"): (0.7, 0.6, 0.8),
        ("vanilla", "running", "hfc", "max"): (0.2, 0.3),
        ("vanilla", "matched", "hfc", "max"): (0.5, 0.4),
        ("batchnorm", "batch", "hfc", "mean"): (0.75, 0.65),
        ("vanilla", "running", "hfc", "mean"): (0.5, 0.6),
        ("batchnorm", "batch", "lfc", "max"): (0.9, 0.8),
        ("vanilla", "running", "lfc", "max"): (0.1, 0.2),
    }
    rows = [
        row(variant, statistics, accuracy, seed, band=band, feed=feed) | {"draw": variant}
        for (variant, statistics, band, feed), ones in values.items()
        for seed, accuracy in enumerate(ones)
    ]
    table = batchnorm.lead_table(tidy(rows), [4, 8], ["hfc", "lfc"])
    # Nothing is measured at r = 8, nor of vanilla under both controls.
    kinds = [("H4", "none"), ("H4", "mean colour alone"), ("H4", "test-batch statistics for both"), ("L4", "none")]
    assert list(table.index) == kinds
    low, high = stats.ttest_ind([0.7, 0.6, 0.8], [0.2, 0.3], equal_var=False).confidence_interval(0.95)
    assert table.loc["H4", "none"].tolist() == [".25", ".70", with_interval(0.45, low, high), 2]
    assert [*table["vanilla"]] == [".25", ".55", ".45", ".15"]
    assert [*table["BatchNorm"]] == [".70", ".70", ".70", ".85"]
    assert list(batchnorm.lead_table(tidy(rows), [4]).index) == kinds[:3]


def test_the_gain_of_an_amplified_hfc_at_test_time_is_a_difference_by_seed():
    scaled = [
        row("vanilla", statistics, accuracy, seed) | {"part": "scaled", "scale": scale}
        for statistics, ones in {"running": {1: (0.2, 0.3), 4: (0.5, 0.4)}, "matched": {1: (0.1, 0.1)}}.items()
        for scale, accuracies in ones.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    unscaled = row("vanilla", "running", 0.9, 0) | {"scale": 1}
    rows = tidy([*scaled, unscaled]).assign(feed="mean")
    table = batchnorm.scaled_table(rows, [4])
    assert list(table) == ["k = 4"]
    assert table.loc[("mean colour added", 4), "k = 4"] == with_interval(0.2, 0.2 - 1.27062, 0.2 + 1.27062)


def test_groupnorm_is_compared_as_an_independent_sample():
    values = {("groupnorm", "running"): (0.4, 0.3), ("vanilla", "running"): (0.1, 0.2, 0.3)}
    rows = [row(*network, one, seed) for network, ones in values.items() for seed, one in enumerate(ones)]
    rows += [
        row(name, how, 0.5, seed) for name, how in (("groupnorm", "matched"), ("vanilla", "matched")) for seed in (0, 1)
    ]
    rows += [row("batchnorm", "batch", 0.7, seed) for seed in (0, 1)]
    table = batchnorm.groupnorm_table(tidy(rows), [4, 8])
    low, high = stats.ttest_ind([0.4, 0.3], [0.1, 0.2, 0.3], equal_var=False).confidence_interval(0.95)
    expected = [with_interval(0.15, low, high), with_interval(0, 0, 0), with_interval(0.2, 0.2, 0.2)]
    assert table.loc["H4"].tolist() == expected
    assert list(table.index) == ["H4"]


def test_the_notebook_shows_all_published_seeds(chapter_table, runs):
    every = BATCHNORM.judged("laptop", runs)
    for variant, ones in runs.items():
        assert [run.path for run in every[variant][: len(ones)]] == [run.path for run in ones]
    table = batch_statistics.table(every)
    feeds = table.query("variant in @batchnorm.PAIR and part == 'feeds'")
    assert (feeds.groupby("variant")["seed"].nunique() == 10).all()
    assert not table.drop(columns=["n", "value"]).duplicated().any()
    assert len(table.merge(chapter_table)) == len(chapter_table)
    assert BATCHNORM.judged("paper", Runs()) == {}  # which has no run


def test_only_the_seeds_of_the_parameter_are_measured(runs, published_folder, monkeypatch):
    measured = []
    monkeypatch.setattr(batch_statistics, "measure", lambda run, variant: measured.append(run.seed))
    batch_statistics.table(Runs(vanilla=runs["vanilla"]), compute=[1])
    assert measured == [1]


def test_the_published_claims(chapter_table, runs):
    """What is left has three seeds or more, and is BatchNorm's lead over vanilla with the same statistics, by Welch.

    BatchNorm's accuracy under test-batch statistics is in its run, vanilla's with matched moments in the
    file beside its run.
    """
    for radius in (4, 8, 12):
        place = f"band == 'hfc' and radius == {radius} and feed == 'max'"
        normed = [run.final.query(f"{place} and bn_stats == 'batch'")["accuracy"].item() for run in runs["batchnorm"]]
        files = [data_folder() / "batchnorm" / f"{run.path.name}.csv" for run in runs["vanilla"]]
        rows = [pd.read_csv(file).query(f"{place} and part == 'feeds' and statistics == 'matched'") for file in files]
        assert [run.seed for run in runs["batchnorm"]] == [run.seed for run in runs["vanilla"]] == [0, 1, 2]
        plain = [one["accuracy"].item() for one in rows]
        by_scipy = welch(normed, plain)
        errors = [np.mean([(share * (1 - share) / 10_000) ** 0.5 for share in ones]) for ones in (normed, plain)]
        half = np.hypot(by_scipy.high - by_scipy.mean, 1.959964 * np.linalg.norm(errors))
        left = BATCHNORM.estimate(CLAIMS[f"batchnorm-left-H{radius}"], chapter_table)
        assert left.seeds == 3
        assert left.mean == pytest.approx(by_scipy.mean, abs=1e-9)
        assert [left.low, left.high] == pytest.approx([left.mean - half, left.mean + half], abs=1e-5)


# ---- figures


def test_ticks_stand_for_their_stored_rows(chapter_table, runs):
    rows = batchnorm.pair_rows(chapter_table, [4], ["where", "batch size", "mixed"])
    drawn = rows.query("variant == 'vanilla' and seed == 0").set_index("x")["value"]
    file = data_folder() / "batchnorm" / f"{runs['vanilla'][0].path.name}.csv"
    stored = pd.read_csv(file).query("radius == 4")
    for x, part, column, value in (
        ("pixels only", "where", "where", "input"),
        ("first stage", "where", "where", "first"),
        ("batch of 10", "batch size", "batch_size", 10),
        ("half clean", "mixed", "part", "mixed"),
    ):
        assert drawn[x] == stored[(stored["part"] == part) & (stored[column] == value)]["accuracy"].item()


def test_figures_draw_the_means_of_their_rows(chapter_table):
    lines = [("vanilla", "matched"), ("batchnorm", "batch")]
    rows = batchnorm.pair_rows(chapter_table, [4, 8], ["where", "batch size", "mixed"])
    assert set(rows["n"]) == {2_000}  # at each place the same ones
    places = rows.groupby(["variant", "panel", "seed"])["x"].nunique()
    assert places.groupby("variant").agg(set).to_dict() == {"vanilla": {6}, "batchnorm": {4}}
    assert list(rows["panel"].unique()) == ["r = 4", "r = 8"]
    ticks = ["pixels only", "first stage", "all layers", "batch of 10", "batch of 1000", "half clean"]
    assert list(rows["x"].cat.categories) == ticks
    assert not rows["x"].isna().any()
    figure = batchnorm.accuracy_figure(rows, lines=lines)
    (plain, *_) = figure.axes
    here = rows[(rows["panel"] == "r = 4") & (rows["line"] == LINES[lines[0]])]
    drawn = [line.get_xdata() for line in plain.lines if len(line.get_xdata()) == len(ticks)]
    assert drawn[0] == pytest.approx(here.groupby("x", observed=False)["value"].mean().to_numpy())
    feeds = batchnorm.accuracy_figure(batchnorm.pair_rows(chapter_table, [4], ["feeds"]))
    assert [tick.get_text() for tick in feeds.axes[0].get_yticklabels()] == ["max", "raw", "mean"]
    faces = {
        text.get_text(): mark.get_markerfacecolor()
        for text, mark in zip(feeds.legends[0].get_texts(), feeds.legends[0].get_lines(), strict=True)
    }
    assert [name for name, face in faces.items() if face == "white"] == ["vanilla", "BatchNorm, running averages"]


def test_the_table_of_all_networks_has_each_with_test_batch_statistics_and_without(chapter_table):
    text = batchnorm.test_batch_table(chapter_table, [4, 16])
    assert list(text) == ["test", "H4", "H16", "L4", "L16", "seeds"]
    assert text.loc[("Vanilla", "no"), "test"].startswith(".80±")
    assert text.loc[("BatchNorm", "yes"), "H4"].startswith(".69±")
    assert set(text.xs("no", level="test-batch statistics").index) == set(text.index.get_level_values("network"))
    assert text.loc[("Mix-up", "yes"), "seeds"] == 3
