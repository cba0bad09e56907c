"""BatchNorm's lead by width, recounted from the stored files."""

import numpy as np
import pandas as pd
import pytest

from hfclib.paper.stored_tables import data_folder
from hfclib.paper.width import TEST_BATCH, leads_by_width, width_figure, width_runs, width_table
from hfclib.runs.collect import Runs
from tests.paper.tidy import welch
from tests.runs.foreign import RUNS

CONDITIONS = {"measured as the authors did": ("max", "batch"), "mean colour added": ("mean", "running")}


@pytest.fixture(scope="module")
def runs():
    return width_runs()


def hfc(path, variant, measured):
    """The accuracy on the HFC at r = 4 in a stored file, after 16 epochs."""
    rows = pd.read_csv(path).query("band == 'hfc' and radius == 4 and split == 'test'")
    rows = rows[rows["epoch"] == 16] if "epoch" in rows else rows
    feed, statistics = CONDITIONS[measured]
    statistics = statistics if variant == "batchnorm" else "running"  # vanilla has no other
    return rows[(rows["feed"] == feed) & (rows["bn_stats"] == statistics)]["accuracy"].item()


@pytest.mark.parametrize("measured", CONDITIONS)
@pytest.mark.parametrize(("width", "ending", "file"), [(16, "", "curves"), (32, "_w32", "final")])
def test_a_lead_is_recounted_from_the_stored_files(runs, width, ending, file, measured):
    """Width 16 after 16 of 100 epochs."""
    row = leads_by_width({width: runs[width]}).set_index("measured").loc[measured]
    ones = {}
    for variant in ("vanilla", "batchnorm"):
        paths = sorted(RUNS.glob(f"narrow-{variant}{ending}-?-*/{file}.csv"))
        ones[variant] = pd.Series([hfc(path, variant, measured) for path in paths])
        assert row[f"{variant}_hfc"] == pytest.approx(ones[variant].mean())
        assert row["seeds"] == len(paths)
    assert row["images"] == (500 if width == 16 else 10_000)
    lead = welch(ones["batchnorm"], ones["vanilla"])
    more = row["images"] + 2  # Agresti and Coull
    shares = [(one * row["images"] + 1) / more for one in ones.values()]
    errors = [(share * (1 - share) / more).pow(0.5).mean() for share in shares]
    half = np.hypot(lead.high - lead.mean, 1.959964 * np.linalg.norm(errors))
    found = [row[name] for name in ("lead", "low", "high")]
    assert found == pytest.approx([lead.mean, lead.mean - half, lead.mean + half])


def test_test_batch_statistics_for_both_are_those_of_the_measured_table(runs):
    row = leads_by_width({32: runs[32]}).set_index("measured").loc[TEST_BATCH]
    lead = 0
    for run in runs[32]["batchnorm"]:
        lead += hfc(run.path / "final.csv", "batchnorm", "measured as the authors did") / len(runs[32]["batchnorm"])
    for run in runs[32]["vanilla"]:
        table = pd.read_csv(data_folder() / "batchnorm" / f"{run.path.name}.csv")
        matched = table.query("band == 'hfc' and radius == 4 and feed == 'max' and statistics == 'matched'")
        lead -= matched["accuracy"].item() / len(runs[32]["vanilla"])
    assert row["lead"] == pytest.approx(lead)


def test_what_is_missing_says_why(runs):
    leads = leads_by_width({16: runs[16], 48: Runs({"vanilla": runs[16]["vanilla"]})})
    missing = leads.set_index(["width", "measured"])["missing"]
    assert set(missing.loc[48]) == {"run missing"}
    assert missing[16, TEST_BATCH] == "the weights of epoch 16 are not kept"
    assert (missing.loc[16] == "").sum() == 2
    table = width_table(leads)
    assert table.loc[(48, "mean colour added"), "BatchNorm's lead"] == "run missing"
    assert table.loc[(16, "mean colour added"), "images"] == "500"


def test_the_figure_has_a_point_for_each_lead_and_for_the_papers(runs):
    leads = leads_by_width(runs)
    (ax,) = width_figure(leads).axes
    drawn = sorted(x for line in ax.lines if line.get_marker() in "osD" for x in line.get_xdata())
    assert drawn == pytest.approx(sorted([*leads["lead"].dropna(), 0.55]))
    assert [text.get_text() for text in ax.get_yticklabels()] == [f"{width}" for width in runs]
