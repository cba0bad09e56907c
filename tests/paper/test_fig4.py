"""Fig. 4: tables, drawings and claims."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hfclib.conditions import PAPER_RADII
from hfclib.paper.fig4 import (
    FIG4,
    batchnorm_effect,
    beside_narrow,
    beside_paper,
    curves_figure,
    hfc_by_condition,
    leads,
    set_ups_table,
)
from hfclib.paper.intervals import MissingRunError, image_error
from hfclib.paper.paper_values import FIG4_VALUES
from hfclib.paper.presets import TITLES
from hfclib.paper.tables import CONDITIONS, by_seed, decimals, gather, select, with_interval
from hfclib.runs.collect import Runs
from tests.paper.tidy import tidy, welch


def test_beside_the_paper_stand_mean_and_sd(runs):
    table = beside_paper(gather(runs, "final"), [4, 7], "raw", "running")
    values = [
        one.final.query("band == 'hfc' and radius == 4 and feed == 'raw'")["accuracy"].item() for one in runs["vanilla"]
    ]
    expected = f"{decimals(np.mean(values))}\u00a0±\u00a0{decimals(np.std(values, ddof=1))}"
    assert table.loc["H4", ("Vanilla", "ours")] == expected
    assert table.loc["H4", ("Vanilla", "paper")] == ".10"
    assert table.loc["H7", ("Vanilla", "paper")] == "not available to us"


def test_one_seed_has_no_spread(runs):
    table = beside_paper(gather({"vanilla": runs["vanilla"][:1]}, "final"), [4], "raw", "running")
    assert "±" not in table.loc["H4", ("Vanilla", "ours")]


def test_the_papers_schedule_stands_between_ours_and_the_paper(runs):
    final = gather(runs, "final")
    table = beside_narrow(runs, {"vanilla": runs["vanilla"][:1]}, [4])
    assert list(table.columns) == [("Vanilla", one) for one in ("smoke", "narrow", "paper")]
    ours = beside_paper(final, [4], "authors", "batch")["Vanilla", "ours"]
    alone = beside_paper(gather({"vanilla": runs["vanilla"][:1]}, "final"), [4], "authors", "batch")["Vanilla", "ours"]
    assert table["Vanilla", "smoke"].tolist() == ours.tolist() != alone.tolist()
    assert table["Vanilla", "narrow"].tolist() == alone.tolist()
    assert table.loc["H4", ("Vanilla", "paper")] == ".10"
    other = beside_narrow({"batchnorm": runs["batchnorm"]}, {"vanilla": runs["vanilla"][:1]}, [4])
    assert list(other.columns) == [("Vanilla", "narrow"), ("Vanilla", "paper")]


def unpaired_over_images(accuracies, runs):
    """BatchNorm's mean lead over vanilla, whose initial weights differ, with Welch's interval and the images' error."""
    names = "batchnorm", "vanilla"
    images = runs["vanilla"][0].final.query("split == 'test'")["images"].max()
    means = [np.mean([np.array(one[name]) for one in accuracies], axis=0) for name in names]
    by_scipy = welch(*means)
    errors = [np.mean([np.mean(image_error(pd.Series(one[name]), images)) for one in accuracies]) for name in names]
    half = np.hypot(by_scipy.high - by_scipy.mean, 1.959964 * np.linalg.norm(errors))
    return with_interval(by_scipy.mean, by_scipy.mean - half, by_scipy.mean + half)


def test_a_lead_stands_beside_that_with_the_papers_schedule(runs):
    later = {variant: ones[1:] for variant, ones in runs.items() if variant != "dropout"}
    final = gather(runs, "final")
    table = leads(final, gather(later, "final"))
    by_cell = by_seed(select(final, (4, 8), *CONDITIONS["controlled"]), "cell", "variant")
    both = [by_cell[cell] for cell in ("H4", "H8")]
    gain = sum(later["batchnorm"] - later["vanilla"] for later in both) / 2
    expected = [unpaired_over_images(both, runs), decimals(gain[1]), "\u2013"]
    assert table.loc[("BatchNorm", "mean colour added")].tolist() == expected
    dropout, mixup = (table.loc[(title, "measured as the authors did")] for title in ("Dropout", "Mix-up"))
    assert dropout["our schedule"] != "not stored" == dropout["the schedule as stated"] == mixup["our schedule"]
    assert dropout["paper"] == ".115"  # the mean of .21 - .10 and .22 - .10


def test_each_set_up_says_how_far_it_is_from_the_papers_accuracies(runs):
    one = {name: runs[name][:1] for name in ("vanilla", "batchnorm")}
    uneven = {"vanilla": [*one["vanilla"], replace(one["vanilla"][0], seed=1)], "batchnorm": one["batchnorm"]}
    table = set_ups_table({"one": Runs(one), "uneven": Runs(uneven), "half": Runs({"vanilla": runs["vanilla"]})})
    assert list(table.index) == ["one (1)", "uneven (1)", "half", "the paper"]
    assert table.loc["uneven (1)"].tolist() == table.loc["one (1)"].tolist()  # its second network is a copy
    paper = {("vanilla", "train"): 0.92, ("vanilla", "test"): 0.84}
    paper |= {("batchnorm", "train"): 0.96, ("batchnorm", "test"): 0.85}
    accuracies = {
        (name, split): one[name][0].final.query(f"split == '{split}' and band == 'x' and bn_stats == 'running'")
        for name, split in paper
    }
    values = {place: rows["accuracy"].item() for place, rows in accuracies.items()}
    texts = [decimals(value) for value in values.values()]
    levels = [f"{title}, train / test" for title in ("Vanilla", "BatchNorm")]
    assert table.loc["one (1)", levels].tolist() == [" / ".join(texts[:2]), " / ".join(texts[2:])]
    distance = max(abs(values[place] - paper[place]) for place in paper)
    batch = gather(one, "final").query("band == 'x' and bn_stats == 'batch'").set_index(["variant", "split"])["value"]
    with_batch = max(abs(batch[place] - paper[place]) for place in paper)
    assert table.at["one (1)", "farthest (test batch)"] == f"{decimals(distance)} ({decimals(with_batch)})"
    bands = select(gather(one, "final"), (4, 8, 12, 16), "authors", "batch").query("band != 'x'")
    distances = bands.assign(
        distance=[abs(row.value - FIG4_VALUES[row.variant, row.cell]) for row in bands.itertuples()]
    ).groupby("variant")["distance"]
    assert (distances.count() == 8).all()
    expected = ", ".join(decimals(distances.max()[name]) for name in ("vanilla", "batchnorm"))
    assert table.at["one (1)", "farthest of 8 bands: Vanilla, BatchNorm"] == expected
    worse = replace(one["vanilla"][0], seed=1, final=one["vanilla"][0].final.assign(accuracy=1.0))
    two = set_ups_table({"two": Runs(one | {"vanilla": [*one["vanilla"], worse]})}).loc["two (1)"]
    most = 1 - min(FIG4_VALUES["vanilla", f"{band}{radius}"] for band in "LH" for radius in (4, 8, 12, 16))
    mean = decimals((distances.max()["vanilla"] + most) / 2)
    both = f"{mean} (at most {decimals(most)}), {decimals(distances.max()['batchnorm'])}"
    assert two["farthest of 8 bands: Vanilla, BatchNorm"] == both
    effect = batchnorm_effect(gather(one, "final"))["r = 4"]
    assert table.at["one (1)", "lead, measured as the authors did"] == effect["batch", "max"]
    assert table.at["one (1)", "lead, mean colour added"] == effect["running", "mean"]
    half = table.loc["half"]
    assert half.drop(levels[0]).tolist() == ["run missing", *"\u2013" * (len(half) - 2)]
    finals = [run.final.query("band == 'x' and bn_stats == 'running'") for run in runs["vanilla"]]
    means = [
        np.mean([final.query(f"split == '{split}'")["accuracy"] for final in finals]) for split in ("train", "test")
    ]
    assert half[levels[0]] == " / ".join(decimals(mean) for mean in means)
    assert table.loc["the paper"].tolist() == [".55", "\u2013", ".92 / .84", ".96 / .85", *"\u2013\u2013"]


def test_the_effect_is_batchnorm_less_vanilla_beside_the_papers(runs):
    effect = batchnorm_effect(gather(runs, "final"))
    by_hand = {
        name: [run.final.query(f"band == 'hfc' and radius == 4 and {fed}")["accuracy"].item() for run in runs[name]]
        for name, fed in (("vanilla", "feed == 'max'"), ("batchnorm", "feed == 'max' and bn_stats == 'batch'"))
    }
    assert effect.at[("batch", "max"), "r = 4"] == unpaired_over_images([by_hand], runs)
    assert effect.loc[("paper", "max")].tolist() == [".55", ".44", ".23", ".05"]  # .65 - .10, .54 - .10 ...
    conditions = [(stats, feed) for stats in ("batch", "running") for feed in ("max", "raw", "mean")]
    assert list(effect.index) == [*conditions, ("paper", "max")]


def test_the_figure_has_a_panel_a_heuristic_and_decodes_its_lines(runs):
    figure = curves_figure(select(gather(runs), (4, 7), "max", "batch"))
    assert [ax.get_title() for ax in figure.axes] == ["Vanilla", "Dropout", "BatchNorm"]
    assert all(len(ax.get_lines()) == 2 + 4 + 1 for ax in figure.axes)  # whole images, bands, chance
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "radius 4" in labels
    assert "radius 7 (raw, running)" in labels
    for radii, feed, bn_stats, expected in (
        ((4, 7), "mean", "running", "radius 7 (raw, running)"),
        ((7,), "max", "batch", "radius 7 (raw, running)"),
        ((4, 7), "raw", "running", "radius 7"),
    ):
        shown = curves_figure(select(gather(runs), radii, feed, bn_stats))
        assert expected in [text.get_text() for text in shown.legends[0].get_texts()]
    pair = curves_figure(select(gather({name: runs[name] for name in ("vanilla", "dropout")}), (4, 7), "max", "batch"))
    assert len(pair.axes) == 2
    assert [text.get_text() for text in pair.legends[0].get_texts()] == labels
    with pytest.raises(ValueError, match="empty"):
        curves_figure(gather(runs).iloc[:0])


def test_the_papers_values_stand_hollow_at_the_last_epoch(runs):
    rows = select(gather(runs), (4, 7), "max", "batch")
    figure = curves_figure(rows, paper=True)
    vanilla, *_ = figure.axes
    hollow = {line.get_marker(): line.get_xydata().tolist() for line in vanilla.lines if line.get_marker() != "None"}
    end, values = rows["epoch"].max(), {mark: FIG4_VALUES["vanilla", one] for mark, one in (("s", "L4"), ("D", "H4"))}
    assert {mark: hollow[mark] for mark in "sD"} == {mark: [[end, value]] for mark, value in values.items()}
    assert [FIG4_VALUES["vanilla", one] for one in ("train", "test")] == [0.92, 0.84]
    assert hollow["o"][0][1] in (0.92, 0.84)  # the last of two
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "paper, end: HFC"


def test_the_short_figure_shows_both_versions_with_the_means_of_the_runs(runs):
    final = gather(runs, "final")
    left, right = hfc_by_condition(final).axes
    assert (left.get_title(), right.get_title()) == ("Measured as the authors did", "Mean colour added")
    rows = select(final, (4, 8, 12, 16), "mean", "running").query("variant == 'vanilla' and band == 'hfc'")
    shown = right.containers[0].lines[0].get_ydata()
    assert list(shown) == pytest.approx(list(rows.groupby("radius")["value"].mean()))


# ---- claims

CLAIMS = {claim.id.removeprefix("fig4-"): claim for claim in FIG4.claims}
T_2 = 4.302653  # Student's t at .975 with two degrees of freedom, from a table


def final(cells: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    """Final rows from {(variant, measure): accuracy by seed}; under any condition but the claims' they are wrong."""
    rows = []
    for (variant, measure), values in cells.items():
        for seed, value in enumerate(values):
            split, band, radius = "test", {"H": "hfc", "L": "lfc"}.get(measure[0], "x"), None
            if band == "x":
                split, conditions = measure, {("raw", "running"): value, ("raw", "batch"): value}
            else:
                fed = "raw" if variant == "adversarial" else "max"  # as in the authors' code
                radius, conditions = int(measure[1:]), {(feed, "batch"): 0.01 for feed in ("raw", "mean", "max")}
                conditions |= {(fed, "batch"): value, (fed, "running"): 0.99, ("mean", "running"): value / 2}
            rows += [(variant, seed, split, band, radius, *how, one) for how, one in conditions.items()]
    columns = ["variant", "seed", "split", "band", "radius", "feed", "bn_stats", "value"]
    trained = {variant: "single_step" if variant == "adversarial" else "none" for variant, _ in cells}
    return tidy(pd.DataFrame(rows, columns=columns)).assign(adversarial=lambda table: table["variant"].map(trained))


ACCURACIES = {  # by network, measure and seed
    ("vanilla", "train"): [0.90, 0.91, 0.92],
    ("vanilla", "test"): [0.80, 0.80, 0.81],
    ("vanilla", "H4"): [0.10, 0.12, 0.11],
    ("vanilla", "H8"): [0.10, 0.10, 0.10],
    ("vanilla", "H12"): [0.20, 0.20, 0.20],
    ("vanilla", "H16"): [0.10, 0.10, 0.10],
    ("vanilla", "L4"): [0.20, 0.21, 0.20],
    ("vanilla", "L8"): [0.50, 0.50, 0.50],
    ("batchnorm", "test"): [0.84, 0.85, 0.86],
    ("batchnorm", "H4"): [0.60, 0.63, 0.61],
    ("batchnorm", "H8"): [0.40, 0.41, 0.42],
    ("batchnorm", "H12"): [0.30, 0.40, 0.30],
    ("batchnorm", "H16"): [0.20, 0.10, 0.20],
    ("batchnorm", "L4"): [0.30, 0.30, 0.30],
    ("batchnorm", "L8"): [0.60, 0.62, 0.61],
    ("mixup", "train"): [0.80, 0.80, 0.80],
    ("mixup", "test"): [0.81, 0.82, 0.83],
    ("mixup", "H4"): [0.05, 0.08, 0.06],
    ("mixup", "H8"): [0.12, 0.11, 0.10],
    ("dropout", "test"): [0.79, 0.80, 0.81],
    ("dropout", "H4"): [0.10, 0.13, 0.11],
    ("dropout", "H8"): [0.12, 0.11, 0.12],
    ("adversarial", "train"): [0.70, 0.71, 0.70],
    ("adversarial", "test"): [0.69, 0.70, 0.68],
    ("adversarial", "H4"): [0.15, 0.16, 0.17],
    ("adversarial", "H12"): [0.11, 0.12, 0.11],
    ("adversarial", "H16"): [0.10, 0.11, 0.12],
    ("adversarial", "L4"): [0.40, 0.42, 0.41],
}
BY_HAND = {  # the statistic by seed, its value in the paper, the verdict on it
    "batchnorm-H4": ([0.50, 0.51, 0.50], 0.55, "reproduced"),  # .65 - .10
    "batchnorm-H8": ([0.30, 0.31, 0.32], 0.44, "reproduced"),
    "mixup-H4": ([-0.05, -0.04, -0.05], 0.38, "not reproduced in our set-up"),
    "mixup-H8": ([0.02, 0.01, 0.00], 0.24, "inconclusive"),
    # Half of those before, see `final`.
    "mixup-controlled": ([-0.0075, -0.0075, -0.0125], 0.31, "not reproduced in our set-up"),
    "batchnorm-H4-controlled": ([0.25, 0.255, 0.25], 0.55, "reproduced"),
    "batchnorm-H8-controlled": ([0.15, 0.155, 0.16], 0.44, "reproduced"),
    "mixup-H4-controlled": ([-0.025, -0.02, -0.025], 0.38, "not reproduced in our set-up"),
    "mixup-H8-controlled": ([0.01, 0.005, 0.0], 0.24, "inconclusive"),
    "dropout-H4-controlled": ([0.0, 0.005, 0.0], 0.11, "reproduced"),
    "dropout-H8-controlled": ([0.01, 0.005, 0.01], 0.12, "reproduced"),
    "adversarial-H4-controlled": ([-0.025, -0.02, -0.015], 0.07, "not reproduced in our set-up"),
    "batchnorm-H12-H16": ([0.10, 0.10, 0.10], 0.14, "reproduced"),  # (.39 - .16 + .18 - .13) / 2
    "batchnorm-L4-L8": ([0.10, 0.105, 0.105], 0.16, "reproduced"),  # (.38 - .22 + .70 - .54) / 2
    "dropout-H4-H8": ([0.01, 0.01, 0.01], 0.115, "reproduced"),  # (.21 - .10 + .22 - .10) / 2: it does change it there
    "adversarial-L4": ([0.20, 0.21, 0.21], 0.33, "reproduced"),
    "adversarial-test": ([0.11, 0.10, 0.13], 0.15, "reproduced"),
    "adversarial-gap": ([0.09, 0.10, 0.09], 0.08, "reproduced"),  # gaps .10, .11, .11 less .01, .01, .02
    "mixup-gap": ([0.11, 0.13, 0.14], 0.17, "reproduced"),  # gaps .10, .11, .11 less -.01, -.02, -.03
    "adversarial-H4": ([0.05, 0.06, 0.07], 0.07, "reproduced"),
    "levels": ([0.04, 0.04, 0.03], 0.0, "inconclusive"),  # of vanilla, whose value in the paper is .84
}


def test_each_statistic_worked_out_by_hand():
    table = final(ACCURACIES)
    assert set(BY_HAND) == {name for name, claim in CLAIMS.items() if claim.preset == "laptop"}
    for name, (expected, paper, verdict) in BY_HAND.items():
        claim, estimate = CLAIMS[name], FIG4.estimate(CLAIMS[name], table)
        half = T_2 * np.std(expected, ddof=1) / np.sqrt(3)
        values = np.mean(expected), np.mean(expected) - half, np.mean(expected) + half
        assert (estimate.mean, estimate.low, estimate.high) == pytest.approx(values, abs=1e-6), name
        assert estimate.seeds == 3
        assert claim.paper == pytest.approx(paper, abs=1e-9), name
        assert claim.judge(estimate) == verdict, name
    narrow = FIG4.estimate(CLAIMS["batchnorm-narrow"], table)
    assert narrow.mean == pytest.approx(np.mean([0.40, 0.41, 0.41]))


def test_of_many_seeds_of_any_number_the_first_three_are_judged_too():
    """Four networks of one's own, seeds 20 to 23: they were no claim's run while the first seeds were 0 to 2 alone."""
    table = final({cell: [*values, values[0]] for cell, values in ACCURACIES.items()})
    table = table.assign(seed=table["seed"] + 20)
    first, estimate = FIG4.estimates(table)["fig4-mixup-H8"]
    assert (first.seeds, estimate.seeds) == (3, 4)
    assert (first.mean, estimate.mean) == (pytest.approx(0.01), pytest.approx(0.0125))


def test_the_first_three_are_judged_too_where_one_network_of_an_unpaired_claim_has_more():
    table = final({cell: [*values, values[0] + 0.1] for cell, values in ACCURACIES.items()})
    table = table[(table["variant"] != "mixup") | (table["seed"] < 3)].assign(draw=lambda rows: rows["variant"])
    first, estimate = FIG4.estimates(table)["fig4-mixup-H8"]
    assert (first.seeds, estimate.seeds) == (3, 3)
    assert first == FIG4.estimate(CLAIMS["mixup-H8"], table[table["seed"] < 3]) != estimate


def test_a_claim_is_judged_over_the_seeds_that_have_all_its_networks():
    table = final(ACCURACIES)
    two = table[(table["variant"] != "mixup") | (table["seed"] > 0)]
    found = FIG4.estimate(CLAIMS["mixup-H4"], two)
    assert (found.mean, found.seeds) == (pytest.approx(-0.045), 2)
    assert FIG4.estimate(CLAIMS["levels"], two).seeds == 2
    for lacking in ("vanilla", "mixup"):
        with pytest.raises(MissingRunError):
            FIG4.estimate(CLAIMS["mixup-H4"], table[table["variant"] != lacking])
    without = table[table["variant"] != "adversarial"]
    for name in ("adversarial-L4", "adversarial-test", "adversarial-gap", "adversarial-H4"):
        with pytest.raises(MissingRunError):
            FIG4.estimate(CLAIMS[name], without)
    with pytest.raises(MissingRunError):  # all five networks, or none
        FIG4.estimate(CLAIMS["levels"], table[table["variant"] != "dropout"])


def test_panels_draw_their_own_network_and_condition(runs):
    rows = select(gather(runs), (4,), "max", "batch")
    for ax in curves_figure(rows).axes:
        own = rows[rows["variant"].map(TITLES) == ax.get_title()]
        wanted = own.groupby(["cell", "epoch"])["value"].mean().unstack().to_numpy().tolist()
        np.testing.assert_allclose(sorted(list(line.get_ydata()) for line in ax.lines[:-1]), sorted(wanted))
    final = gather(runs, "final")
    for ax, condition in zip(hfc_by_condition(final).axes, CONDITIONS.values(), strict=True):
        hfc = select(final, PAPER_RADII, *condition).query("band == 'hfc'")
        wanted = hfc.groupby(["variant", "radius"])["value"].mean().unstack().to_numpy().tolist()
        np.testing.assert_allclose(sorted(list(bars.lines[0].get_ydata()) for bars in ax.containers), sorted(wanted))
