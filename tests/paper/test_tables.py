"""From runs to tables of accuracies under one condition, and numbers as text."""

import pandas as pd
import pytest
from scipy import stats

from hfclib.paper.fig4 import beside_paper
from hfclib.paper.tables import (
    CONDITIONS,
    band_names,
    contrast_rows,
    contrast_text,
    decimals,
    gather,
    mean_sd,
    select,
    text_table,
    with_interval,
)


def test_every_condition_is_there_once_for_every_network(runs):
    for which in ("curves", "final"):
        table = gather(runs, which)
        keys = ["variant", "seed", "cell"] + (["epoch"] if which == "curves" else [])
        for feed in ("raw", "max", "mean"):
            for bn_stats in ("running", "batch"):
                rows = select(table, (4, 7, 16), feed, bn_stats)
                assert not rows.duplicated(keys).any()
                assert set(rows["cell"]) == {"train", "test", *band_names((4, 7, 16))}
                assert len(rows) == 3 * 2 * 8 * (2 if which == "curves" else 1)


def test_the_values_are_those_of_the_run(runs):
    final = gather(runs, "final")
    for variant, condition in (("batchnorm", "batch"), ("vanilla", "running")):
        stored = runs[variant][1].final
        expected = stored.query(f"band == 'hfc' and radius == 8 and feed == 'mean' and bn_stats == '{condition}'")
        rows = select(final, [8], "mean", "batch")
        got = rows[(rows["variant"] == variant) & (rows["seed"] == 1) & (rows["cell"] == "H8")]
        assert got["value"].item() == expected["accuracy"].item()


def test_a_tie_does_not_hang_on_the_order_of_a_sum():
    for tie in (0.5325, 0.8305, 0.0625):
        assert decimals(tie - 1e-12) == decimals(tie) == decimals(tie + 1e-12)
    assert decimals(0.53249) == ".532"
    assert decimals(0.53251) == ".533"


def test_an_lfc_with_the_mean_colour_is_the_raw_lfc(runs):
    final = gather(runs, "final")
    raw, mean = (select(final, [4], feed, "batch").query("cell == 'L4'") for feed in ("raw", "mean"))
    assert list(raw["value"]) == list(mean["value"]) != []


def test_the_authors_feed_is_raw_for_adversarial_training_and_divided_by_the_maximum_else(random_run):
    # Whatever name a variant has.
    ones = {variant: [random_run(recipe, 0)] for variant, recipe in (("vanilla", "vanilla"), ("five", "adversarial"))}
    final = gather(ones, "final")
    rows = select(final, [8], *CONDITIONS["authors"]).query("band != 'x'")
    assert {variant: set(some["feed"]) for variant, some in rows.groupby("variant")} == {
        "vanilla": {"max"},
        "five": {"raw"},
    }
    only = select(gather({"five": ones["five"]}, "final"), [8], "authors", "batch")
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
    for run in runs["vanilla"] + runs["batchnorm"]:
        expected = run.test_accuracy()
        for which in plain:
            table = getattr(run, which)
            attacked = table[(table["split"] == "test") & (table["band"] == "x")].assign(feed="pgd20", accuracy=0.0)
            object.__setattr__(run, which, pd.concat([table, attacked], ignore_index=True))
        assert run.test_accuracy() == expected
    for which, rows in plain.items():
        again = select(gather(runs, which), [4], "raw", "running")
        pd.testing.assert_frame_equal(again.reset_index(drop=True), rows.reset_index(drop=True))


def test_bands_of_training_images_are_not_taken_for_those_of_test_images(runs):
    plain = {which: select(gather(runs, which), [4], "mean", "batch") for which in ("curves", "final")}
    for run in runs["vanilla"] + runs["batchnorm"]:
        for which in plain:
            table = getattr(run, which)
            bands = table[(table["band"] != "x") & (table["feed"] == "raw")].assign(split="train", accuracy=0.0)
            object.__setattr__(run, which, pd.concat([table, bands], ignore_index=True))
    for which, rows in plain.items():
        again = select(gather(runs, which), [4], "mean", "batch")
        pd.testing.assert_frame_equal(again.reset_index(drop=True), rows.reset_index(drop=True))


def test_a_band_that_is_recorded_twice_counts_once_in_float32(runs):
    run = runs["vanilla"][0]
    bands = run.final.query("split == 'test' and band == 'lfc' and radius == 4 and feed == 'max'")
    kept = select(gather(runs, "final"), [4], "max", "running")
    object.__setattr__(run, "final", pd.concat([run.final, bands.assign(accuracy=0.0)], ignore_index=True))
    again = select(gather(runs, "final"), [4], "max", "running")
    pd.testing.assert_frame_equal(again.reset_index(drop=True), kept.reset_index(drop=True))


def test_bad_arguments_are_refused(runs):
    with pytest.raises(ValueError, match="curves or final"):
        gather(runs, "first")
    with pytest.raises(ValueError, match="at least one run"):
        gather({"vanilla": []})


CELLS = pd.DataFrame(
    [
        {"variant": variant, "measure": "H4", "measured": "controlled", "seed": seed, "value": value, "draw": variant}
        for variant, values in {"vanilla": (0.2, 0.3), "batchnorm": (0.6, 0.7, 0.8)}.items()
        for seed, value in enumerate(values)
    ]
)


def test_a_table_of_contrasts_writes_cells_leads_and_seeds():
    rows = {
        "HFC": {"vanilla": "vanilla.H4", "both": "", "lead": "batchnorm.H4 - vanilla.H4"},
        "LFC": {"vanilla": "vanilla.L4", "both": "", "lead": "batchnorm.H4 - vanilla.H4"},
    }
    low, high = stats.ttest_ind([0.6, 0.7, 0.8], [0.2, 0.3], equal_var=False).confidence_interval(0.95)
    lead = with_interval(0.45, low, high)
    left = contrast_rows(rows, CELLS, "controlled", seeds=True)  # nothing is stored of the LFC
    assert left == {"HFC": {"vanilla": ".250", "both": "", "lead": lead, "seeds": 2}}
    said = contrast_rows(rows, CELLS, "controlled", without="not stored", alone=mean_sd)
    assert said["HFC"]["vanilla"] == ".250\u00a0±\u00a0.071"
    assert said["LFC"] == {"vanilla": "not stored", "both": "", "lead": lead}
    assert contrast_rows(rows, CELLS, "authors") == {}
    assert contrast_text("vanilla.H4", CELLS.assign(measured="")) == ".250"  # the same under every condition


def test_a_table_to_read_has_levels_and_fills_what_a_row_lacks():
    table = text_table({(4, "none"): {"lead": ".1"}, (4, "both"): {"seeds": 2}}, ["r", "control"])
    assert list(table.index.names) == ["r", "control"]
    assert table.loc[(4, "both")].tolist() == ["\u2013", 2]
    assert text_table({}, ["r", "control"]).empty
    assert text_table({"none": {"lead": ".1"}}, ["control"]).index.name == "control"


def test_numbers_as_text():
    expected = {
        0.5: ".500",
        -0.0625: "-.062",
        1.0: "1.000",
        0.0: ".000",
        -0.0001: ".000",
        -20.25: "-20.250",
        10.5: "10.500",
    }
    assert {value: decimals(value) for value in expected} == expected
    assert with_interval(0.5, -0.1, 1.1) == ".500\u00a0[-.100,\u00a01.100]"
    assert with_interval(0.5, -float("inf"), float("inf")) == ".500"
    assert with_interval(0.357, 0.315, 0.3998, 0.4) == ".3570\u00a0[.3150,\u00a0.3998]"  # 0.4 is not in it
    assert with_interval(0.357, 0.315, 0.4, 0.4) == ".357\u00a0[.315,\u00a0.400]"
