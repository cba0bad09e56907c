"""From runs to tidy tables: what the figures draw, and what is written beside them."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from hfclib import published
from hfclib.evaluation import BN_STATS, PAPER_RADII, BnStats
from hfclib.feeds import FEEDS, Feed
from hfclib.runs import Run

CONFIDENCE = 0.95
TITLES = {"vanilla": "Vanilla", "dropout": "Dropout", "mixup": "Mix-up", "batchnorm": "BatchNorm",
          "adversarial": "Adversarial training"}  # fmt: skip

FIG2_TITLES = {"vanilla": "Vanilla, width 16", "batchnorm": "BatchNorm, width 16", "fullwidth": "BatchNorm, width 64"}

Version = Literal["as published", "controlled"]
# The authors' code divides a band by its maximum in the standard runs, and not in the adversarial ones.
TableFeed = Feed | Literal["authors"]
# What a version feeds and how its BatchNorm normalises: the authors' code, and the same for every panel.
CONDITIONS: dict[Version, tuple[TableFeed, BnStats]] = {"as published": ("authors", "batch"),
                                                        "controlled": ("mean", "running")}  # fmt: skip


def gather(runs: Mapping[str, Sequence[Run]], which: str = "curves") -> pd.DataFrame:
    """One table of the runs of several panels.

    Args:
        runs: the runs of each panel.
        which: "curves" (after each epoch) or "final" (after training).
    Returns:
        The rows of all runs with two more columns, panel and seed. Conditions that a run records once because they
        cannot differ are spelled out: an LFC with the mean colour is the raw LFC, and a network without BatchNorm
        has the same accuracy with either kind of statistics.
    Raises:
        ValueError: another table, or no run at all.
    """
    if which not in ("curves", "final"):
        raise ValueError(f"expected which, curves or final, got {which!r}")
    if not any(runs.values()):
        raise ValueError("expected at least one run, got none")
    parts = []
    for panel, ones in runs.items():
        for run in ones:
            rows = getattr(run, which).assign(panel=panel, seed=run.seed)
            lows = (rows["split"] == "test") & (rows["band"] == "lfc") & (rows["feed"] == "raw")
            lows = rows[lows & rows["radius"].isin(PAPER_RADII)]
            rows = pd.concat([rows, lows.assign(feed="mean")])
            if run.recipe.norm != "batch":
                there = (rows["band"] == "x") | rows["radius"].isin(PAPER_RADII)
                rows = pd.concat([rows, rows[there].assign(bn_stats="batch")])
            parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def select(table: pd.DataFrame, radii: Sequence[int], feed: TableFeed, bn_stats: BnStats) -> pd.DataFrame:
    """The rows of a table from `gather` under one condition, at these radii, with a column `measure`.

    Runs record every radius raw with running statistics, and the other conditions at r = 4, 8, 12, 16 only: at any
    other radius the raw, running rows are returned, and their own feed and bn_stats columns say so. Whole images are
    fed raw under every condition; their rows under attack are not among those returned, nor are bands of training
    images. Feed "authors" is "max", but "raw" for adversarial training, as in the authors' code.

    Returns:
        Rows whose measure is "train", "test", or a band and radius such as "L4" or "H12".
    """
    fed = np.where(table["panel"] == "adversarial", "raw", "max") if feed == "authors" else feed
    exact = (table["feed"] == fed) & (table["bn_stats"] == bn_stats) & table["radius"].isin(PAPER_RADII)
    other = (table["feed"] == "raw") & (table["bn_stats"] == "running") & ~table["radius"].isin(PAPER_RADII)
    bands = (table["split"] == "test") & (table["band"] != "x") & table["radius"].isin(radii) & (exact | other)
    whole = (table["band"] == "x") & (table["feed"] == "raw") & (table["bn_stats"] == bn_stats)
    rows = table[whole | bands]
    letter = rows["band"].map({"lfc": "L", "hfc": "H", "x": ""})
    return rows.assign(measure=np.where(rows["band"] == "x", rows["split"], letter + rows["radius"].astype(str)))


def measures(radii: Sequence[int]) -> list[str]:
    """The measures of `select` in the order of the published table."""
    return ["train", "test", *(f"L{r}" for r in radii), *(f"H{r}" for r in radii)]


def beside_paper(final: pd.DataFrame, radii: Sequence[int], feed: TableFeed, bn_stats: BnStats) -> pd.DataFrame:
    """Our end-of-training accuracies beside the paper's: for each panel, our mean ± sd over seeds, and the paper's.

    Returns:
        Index measure, columns (panel's title, "ours" or "paper"), text cells; "not published" where the paper has none.
        A measure that is recorded under another condition than the one asked for (`select`) says so.
        The sd is the sample standard deviation over seeds; with one seed it is left out.
    """
    rows = select(final, radii, feed, bn_stats)
    grouped = rows.groupby(["panel", "measure"], sort=False)["accuracy"].agg(["mean", "std", "count"])
    columns = {}
    for panel in dict.fromkeys(rows["panel"]):
        ours, paper = (columns.setdefault((TITLES[panel], source), {}) for source in ("ours", "paper"))
        for measure in measures(radii):
            mean, sd, count = grouped.loc[(panel, measure)]
            odd = (
                measure[1:].isdigit() and int(measure[1:]) not in PAPER_RADII and (feed, bn_stats) != ("raw", "running")
            )
            name = f"{measure} (raw, running)" if odd else measure
            ours[name] = decimals(mean) + (f"\u00a0±\u00a0{decimals(sd)}" if count > 1 else "")
            value = published.fig4(panel, measure)
            paper[name] = decimals(value.value, 2) if value else "not published"
    return pd.DataFrame(columns).rename_axis("accuracy on")


def decimals(value: float, places: int = 3) -> str:
    """A number between -1 and 1 without the zero before the point, as tables of accuracies have it."""
    return f"{value:z.{places}f}".replace("0.", ".", 1)


def with_interval(mean: float, low: float, high: float) -> str:
    """ "mean [low, high]" on one line; the mean alone where the interval is infinite, as with a single seed."""
    if not np.isfinite(low):
        return decimals(mean)
    return f"{decimals(mean)} [{decimals(low)}, {decimals(high)}]".replace(" ", "\u00a0")


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of values over seeds and its 95 % Student-t interval: (mean, low, high); with one value, infinite ends."""
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, -np.inf, np.inf
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return mean, mean - half, mean + half


def by_seed(final: pd.DataFrame, measure: str, feed: TableFeed, bn_stats: BnStats) -> pd.DataFrame:
    """Accuracies at one measure ("L4", "H12", "test"...), in [0, 1]: a row a seed, a column a panel."""
    radii = [int(measure[1:])] if measure[1:].isdigit() else []
    rows = select(final, radii, feed, bn_stats)
    return rows[rows["measure"] == measure].pivot_table(index="seed", columns="panel", values="accuracy")


def difference(final: pd.DataFrame, panel: str, measure: str, feed: TableFeed, bn_stats: BnStats) -> pd.Series:
    """Accuracy of a panel minus vanilla's at one measure, seed by seed, in [-1, 1]; arguments as in `by_seed`."""
    wide = by_seed(final, measure, feed, bn_stats)
    return wide.reindex(columns=[panel, "vanilla"]).diff(-1, axis="columns")[panel].dropna()


def batchnorm_effect(final: pd.DataFrame, radii: Sequence[int] = PAPER_RADII) -> pd.DataFrame:
    """BatchNorm's HFC accuracy minus vanilla's, under each feed and each kind of statistics.

    Returns:
        A row a (radius, bn_stats, feed): mean difference over seeds, low and high (95 %), and share_left: the mean
        as a share of the one under the authors' condition (feed "max", bn_stats "batch") at that radius, NaN if that
        is 0.
    """
    rows = []
    for radius in radii:
        as_published = difference(final, "batchnorm", f"H{radius}", "max", "batch").mean()
        for bn_stats in reversed(BN_STATS):
            for feed in ("max", "raw", "mean"):
                mean, low, high = interval(difference(final, "batchnorm", f"H{radius}", feed, bn_stats))
                left = mean / as_published if as_published else np.nan
                rows.append({"radius": radius, "bn_stats": bn_stats, "feed": feed, "difference": mean,
                             "low": low, "high": high, "share_left": left})  # fmt: skip
    return pd.DataFrame(rows)


def batchnorm_effect_text(effect: pd.DataFrame) -> pd.DataFrame:
    """`batchnorm_effect` as a reader's table: a row a condition, a column a radius, "difference [low, high]"."""
    cells = {}
    for row in effect.itertuples():
        cell = with_interval(row.difference, row.low, row.high)
        cells.setdefault((row.bn_stats, row.feed), {})[f"r = {row.radius}"] = cell
    return pd.DataFrame.from_dict(cells, orient="index").rename_axis(["statistics", "feed"])


def _over_seeds(values: pd.Series) -> str:
    spread = f"\u00a0±\u00a0{decimals(values.std(ddof=1))}" if len(values) > 1 else ""
    return decimals(values.mean()) + spread


def table1(final: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1 beside ours, and what it lacks: the accuracy on the band of test images that was trained on.

    Args:
        final: a table from `gather(runs, "final")` of the networks of `figures.fig1` and `figures.fig1_scale`.
    Returns:
        Index (trained on, radius); text cells, ours mean ± sd over seeds. Where the paper's values for single radii
        were not published to us, its range over the radii stands.
    """
    rows = []
    for panel in dict.fromkeys(final["panel"]):
        band, radius = panel[:3], int(panel[3:].removesuffix("max"))
        own = final[(final["panel"] == panel) & (final["bn_stats"] == "running")]
        on_band = own[(own["band"] == band) & (own["radius"] == radius) & ~own["feed"].isin(FEEDS)]
        if on_band.empty:  # rescaled by the maximum, as the authors do, which is a feed of its own
            on_band = own[(own["band"] == band) & (own["radius"] == radius) & (own["feed"] == "max")]
            on_band = on_band.drop_duplicates(["split", "seed"])  # which is measured among the bands once more
        originals = own[(own["band"] == "x") & (own["split"] == "test")]
        scaled = " divided by its maximum" if panel.endswith("max") else ""
        row = {"trained on": f"{band.upper()}{scaled}", "radius": radius}
        for name, measure, ours in (("training images", "train", on_band[on_band["split"] == "train"]),
                                    ("original test images", "test", originals)):  # fmt: skip
            value = published.table1(panel, measure)
            paper = decimals(value.value) if value else published.TABLE1_HFC[measure]
            row |= {name: _over_seeds(ours["accuracy"]), f"{name}, paper": paper}
        row["same band of test images"] = _over_seeds(on_band[on_band["split"] == "test"]["accuracy"])
        rows.append(row)
    return pd.DataFrame(rows).set_index(["trained on", "radius"])
