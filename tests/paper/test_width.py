"""BatchNorm's lead by width, recounted from the stored files."""

import numpy as np
import pandas as pd
import pytest

from hfclib.paper.stored_tables import data_folder
from hfclib.paper.width import (
    TEST_BATCH,
    epoch_figure,
    epoch_runs,
    leads_by_epoch,
    leads_by_width,
    stated_pair,
    width_figure,
    width_runs,
    width_table,
)
from hfclib.runs.collect import Runs
from tests.paper.tidy import welch
from tests.runs.foreign import RUNS

KEYS = ["set_up", "width", "epochs", "measured"]
CONDITIONS = {"measured as the authors did": ("max", "batch"), "mean colour added": ("mean", "running")}


@pytest.fixture(scope="module")
def runs():
    return width_runs()


@pytest.fixture(scope="module")
def leads(runs):
    return leads_by_width(runs)


def hfc(path, variant, measured, epoch=16):
    """The accuracy on the HFC at r = 4 in a stored file, of curves after an epoch."""
    rows = pd.read_csv(path).query("band == 'hfc' and radius == 4 and split == 'test'")
    rows = rows[rows["epoch"] == epoch] if "epoch" in rows else rows
    feed, statistics = CONDITIONS[measured]
    statistics = statistics if variant == "batchnorm" else "running"  # vanilla has no other
    return rows[(rows["feed"] == feed) & (rows["bn_stats"] == statistics)]["accuracy"].item()


@pytest.mark.parametrize("measured", CONDITIONS)
@pytest.mark.parametrize(
    ("place", "epoch", "ending", "images"),
    [
        (("as stated", 16), 6, "", 500),
        (("as stated", 16), 16, "", 500),
        (("as stated", 32), 6, "_w32", 500),
        (("as stated", 32), 16, "_w32", 10_000),
        (("crop and flip", 16), 4, "_cropped", 500),
        (("crop and flip", 16), 30, "_cropped", 500),
        (("crop and flip", 64), 4, "_cropped4", 1_000),
        (("crop and flip", 64), 30, "_cropped30", 10_000),
    ],
)
def test_a_lead_is_recounted_from_the_stored_files(leads, place, epoch, ending, images, measured):
    """Width 16 after the first epochs of 100."""
    row = leads.set_index(KEYS).loc[*place, epoch, measured]
    ones, preset = {}, "paper" if place[1] == 64 else "narrow"
    file = "curves" if images == 500 else "final"
    for variant in ("vanilla", "batchnorm"):
        paths = sorted(RUNS.glob(f"{preset}-{variant}{ending}-?-*/{file}.csv"))
        ones[variant] = pd.Series([hfc(path, variant, measured, epoch) for path in paths])
        assert row[f"{variant}_hfc"] == pytest.approx(ones[variant].mean())
    assert row["seeds"] == min(map(len, ones.values()))
    assert row["images"] == images
    lead = welch(ones["batchnorm"], ones["vanilla"])
    more = row["images"] + 2  # Agresti and Coull
    shares = [(one * row["images"] + 1) / more for one in ones.values()]
    errors = [(share * (1 - share) / more).pow(0.5).mean() for share in shares]
    half = np.hypot(lead.high - lead.mean, 1.959964 * np.linalg.norm(errors))
    found = [row[name] for name in ("lead", "low", "high")]
    assert found == pytest.approx([lead.mean, lead.mean - half, lead.mean + half])


def test_test_batch_statistics_for_both_are_those_of_the_measured_table(runs, leads):
    pair = runs["as stated", 32]
    row = leads.set_index(KEYS).loc["as stated", 32, 16, TEST_BATCH]
    lead = 0
    for run in pair["batchnorm"]:
        lead += hfc(run.path / "final.csv", "batchnorm", "measured as the authors did") / len(pair["batchnorm"])
    for run in pair["vanilla"]:
        table = pd.read_csv(data_folder() / "batchnorm" / f"{run.path.name}.csv")
        matched = table.query("band == 'hfc' and radius == 4 and feed == 'max' and statistics == 'matched'")
        lead -= matched["accuracy"].item() / len(pair["vanilla"])
    assert row["lead"] == pytest.approx(lead)


def test_one_network_of_a_kind_has_a_lead_without_an_interval(runs):
    pair = runs["as stated", 64]
    one = Runs({"vanilla": pair["vanilla"], "batchnorm": pair["batchnorm"][:1]})
    row = leads_by_width({("as stated", 64): one}).set_index(KEYS).loc["as stated", 64, 16, "mean colour added"]
    (normed,) = RUNS.glob("paper-batchnorm_16-0-*/final.csv")
    plain = list(RUNS.glob("paper-vanilla_16-*/final.csv"))
    assert len(plain) > 1
    vanilla = np.mean([hfc(file, "vanilla", "mean colour added") for file in plain])
    lead = hfc(normed, "batchnorm", "mean colour added") - vanilla
    assert row["lead"] == pytest.approx(lead)
    assert [row["low"], row["high"], row["seeds"], row["images"]] == [-np.inf, np.inf, 1, 1000]


def test_what_is_missing_says_why(runs):
    first, short, absent = (("as stated", width) for width in (16, 64, 48))
    four = stated_pair("paper", "_cropped4")
    some = {first: runs[first], short: four, absent: Runs({"vanilla": runs[first]["vanilla"]})}
    leads = leads_by_width(some)
    missing = leads.query("epochs == 16").set_index(["width", "measured"])["missing"]
    assert set(missing.loc[48]) == {"run missing"}
    assert set(missing.loc[64]) == {"trained for 4 epochs"}
    assert missing[16, TEST_BATCH] == "the weights of epoch 16 are not kept"
    assert (missing.loc[16] == "").sum() == 2
    table = width_table(leads).loc["as stated, 16 epochs"]
    assert table.loc[(48, "mean colour added"), "BatchNorm's lead"] == "run missing"
    assert table.loc[(16, "mean colour added"), "images"] == "500"


def test_the_figure_has_a_point_for_each_lead_and_for_the_papers_in_each_panel(leads):
    figure = width_figure(leads)
    for ax, ((set_up, epochs), own) in zip(figure.axes, leads.groupby(["set_up", "epochs"]), strict=True):
        assert ax.get_title().lower() == f"{set_up}, {epochs} epochs"
        drawn = sorted(x for line in ax.lines if line.get_marker() in "osD" for x in line.get_xdata())
        assert drawn == pytest.approx(sorted([*own["lead"].dropna(), 0.55]))
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["16", "32", "64"]


@pytest.fixture(scope="module")
def by_epoch():
    return leads_by_epoch(epoch_runs())


def test_the_runs_of_the_figure_by_epoch_are_the_longest_of_each_seed(runs):
    for place, pair in epoch_runs().items():
        for variant, ones in pair.items():
            epochs = [(run.seed, run.recipe.epochs) for run in runs[place][variant]]
            longest = pd.DataFrame(epochs, columns=["seed", "epochs"]).groupby("seed")["epochs"].max()
            assert sorted((run.seed, run.recipe.epochs) for run in ones) == list(longest.items())
    assert [run.recipe.epochs for run in epoch_runs()["crop and flip", 64]["vanilla"] if run.seed == 0] == [30]


@pytest.mark.parametrize("measured", CONDITIONS)
def test_a_lead_by_epoch_is_the_difference_of_a_seeds_two_networks(by_epoch, measured):
    place = "crop and flip", 16, measured, 1, 30
    keys = ["set_up", "width", "measured", "seed", "epoch"]
    assert not by_epoch.duplicated(keys).any()
    accuracies = {}
    for variant in ("vanilla", "batchnorm"):
        (path,) = RUNS.glob(f"narrow-{variant}_cropped-1-*/curves.csv")
        accuracies[variant] = hfc(path, variant, measured, 30)
    assert by_epoch.set_index(keys)["lead"][place] == pytest.approx(accuracies["batchnorm"] - accuracies["vanilla"])


def test_the_figure_by_epoch_has_a_line_for_each_set_up_and_width_and_the_papers_lead_in_one_panel(runs, by_epoch):
    pairs = [place for place, pair in runs.items() if set(pair) == {"vanilla", "batchnorm"}]
    figure = epoch_figure(by_epoch)
    for ax, measured in zip(figure.axes, CONDITIONS, strict=True):
        own = by_epoch[by_epoch["measured"] == measured]
        means = own.groupby(["set_up", "width", "epoch"])["lead"].mean()
        drawn = [line for line in ax.lines if len(line.get_xdata()) > 2]
        for line, place in zip(drawn, pairs, strict=True):
            assert list(line.get_ydata()) == pytest.approx(means[place].tolist())
    assert [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"] == [pytest.approx(0.55)]
    assert not [line for line in figure.axes[1].lines if line.get_marker() == "o"]
