"""Tables of the chapter on misaligned images."""

from collections.abc import Mapping, Sequence

import pandas as pd
from torch import Tensor

from hfclib.data import CLASSES
from hfclib.evaluation import BN_STATS, PAPER_RADII, BnStats
from hfclib.feeds import Feed
from hfclib.misalignment import BANDS, count_by_radius, counts
from hfclib.predictions import Predictions
from hfclib.recipes import RADII
from hfclib.runs import Run
from hfclib.tables import FIG2_TITLES


def misaligned(predictions: Mapping[str, Sequence[Predictions]], seeds: Sequence[int], labels: Tensor) -> pd.DataFrame:
    """`misalignment.counts` of several panels and seeds, by the Fourier split and by the SVD, with a column seed."""
    parts = []
    for index, seed in enumerate(seeds):
        of_seed = {panel: ones[index] for panel, ones in predictions.items()}
        for cut in BANDS:
            parts.append(counts(of_seed, labels, RADII, cut=cut).assign(seed=seed))
    return pd.concat(parts, ignore_index=True)


_RIGHT = {True: "right", False: "wrong"}


def eight(predictions: Mapping[str, Predictions], indices: Sequence[int], labels: Tensor, radius: int, feed: Feed,
          bn_stats: BnStats) -> pd.DataFrame:  # fmt: skip
    """Whether networks are right on some images, on their HFC and on their LFC.

    Returns:
        A row an image: its number and class; for each network, text such as "right, wrong, right" in that order, and
        "misaligned" where it is right, right, wrong; "not asked" where the answers do not reach that far, or not to
        that condition.
    """
    rows = []
    for index in indices:
        row = {"image": index, "class": CLASSES[labels[index]]}
        for panel, answers in predictions.items():
            asked = (("x", 0, "raw"), ("hfc", radius, feed), ("lfc", radius, feed))
            known = all(answers.has(*one, bn_stats) for one in asked)
            if not known or index >= len(answers.on("x", bn_stats=bn_stats)):
                row[FIG2_TITLES[panel]] = "not asked"
                continue
            right = [bool(answers.on(*one, bn_stats)[index] == labels[index]) for one in asked]
            text = ", ".join(_RIGHT[one] for one in right)
            row[FIG2_TITLES[panel]] = f"{text}: misaligned" if right == [True, True, False] else text
        rows.append(row)
    return pd.DataFrame(rows).set_index(["image", "class"])


def misaligned_at(table: pd.DataFrame, radius: int) -> pd.DataFrame:
    """Counts of misaligned images at one radius: a row a (statistics, feed), a column a network, and the paper's.

    "not asked" where a network's answers do not reach to that condition.

    Args:
        table: from `misaligned`.
        radius: DFT bins.
    """
    rows = table[(table["cut"] == "fourier") & (table["radius"] == radius)]
    batch_norm = set(table.loc[table["bn_stats"] == "batch", "panel"])
    cells = {}
    for row in rows.itertuples():
        for bn_stats in BN_STATS:
            if row.bn_stats == bn_stats or row.panel not in batch_norm:
                text = f"{row.misaligned} (by chance {row.by_chance:.0f})"
                cells.setdefault((bn_stats, row.feed), {})[FIG2_TITLES[row.panel]] = text
    frame = pd.DataFrame.from_dict(cells, orient="index").sort_index(ascending=False, kind="stable").fillna("not asked")
    return frame.assign(paper="~600" if radius == 12 else "not published").rename_axis(["statistics", "feed"])


def by_cut(table: pd.DataFrame) -> pd.DataFrame:
    """Counts of misaligned images by the Fourier split and by the truncated SVD, raw, running statistics.

    Args:
        table: from `misaligned`.
    Returns:
        A row a radius, a column a network and cut.
    """
    rows = table[(table["feed"] == "raw") & (table["bn_stats"] == "running") & table["radius"].isin(PAPER_RADII)]
    titles = {"fourier": "Fourier split", "svd": "truncated SVD"}
    rows = rows.assign(column=rows["panel"].map(FIG2_TITLES) + ": " + rows["cut"].map(titles))
    wide = rows.pivot_table(index="radius", columns="column", values="misaligned", sort=False)
    return wide[sorted(wide.columns)].astype(int).rename_axis(columns=None)


def recount(runs: Mapping[str, Run], images: Tensor, labels: Tensor, table: pd.DataFrame, feed: Feed,
            bn_stats: BnStats) -> pd.DataFrame:  # fmt: skip
    """Count again from the weights, and compare with the counts of stored answers.

    Args:
        runs: by panel; at width 16 each takes a few seconds a radius on two CPU cores.
        images: (N, 3, H, W) float in [0, 1].
        labels: (N,) int64.
        table: from `misaligned`.
        feed, bn_stats: the condition.
    Returns:
        A row a (panel, radius): now and stored, counts. They may differ by a few images: bfloat16 rounds otherwise in
        another batch or on another machine.
    """
    rows = []
    for panel, run in runs.items():
        own = table[(table["panel"] == panel) & (table["cut"] == "fourier") & (table["feed"] == feed)]
        own = own[own["bn_stats"] == (bn_stats if run.recipe.norm == "batch" else "running")].set_index("radius")
        made = count_by_radius(run.model(), images, labels, list(own.index), feed=feed, bn_stats=bn_stats)
        rows += [{"panel": panel, "radius": radius, "now": now, "stored": own.loc[radius, "misaligned"]}
                 for radius, now in zip(own.index, made, strict=True)]  # fmt: skip
    return pd.DataFrame(rows)
