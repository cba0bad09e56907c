"""Tables of the chapter on misaligned images."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

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


def misaligned(predictions: Mapping[str, Mapping[int, Predictions]], labels: Tensor) -> pd.DataFrame:
    """`misalignment.counts` of several panels and seeds, by the Fourier split and by the SVD, with a column seed.

    Args:
        predictions: by panel and seed; panels may have different seeds.
        labels: (N,) of the images they were made on.
    """
    parts = []
    for seed in sorted({seed for ones in predictions.values() for seed in ones}):
        of_seed = {panel: ones[seed] for panel, ones in predictions.items() if seed in ones}
        for cut in BANDS:
            parts.append(counts(of_seed, labels, RADII, cut=cut).assign(seed=seed))
    return pd.concat(parts, ignore_index=True)


def of_one_seed(table: pd.DataFrame) -> pd.DataFrame:
    """The table itself, from `misaligned` or `misalignment.counts`.

    Raises:
        ValueError: it has several seeds, which a count an image set and radius can't show.
    """
    seeds = sorted(set(table["seed"])) if "seed" in table else []
    if len(seeds) > 1:
        raise ValueError(f"expected counts of one seed, got those of {', '.join(map(str, seeds))}")
    return table


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


def _beside_chance(row: NamedTuple) -> str:
    return f"{row.misaligned} (by chance {row.by_chance:.0f})"


def misaligned_at(table: pd.DataFrame, radius: int) -> pd.DataFrame:
    """Counts of misaligned images at one radius: a row a (statistics, feed), a column a network, and the paper's.

    "not asked" where a network's answers do not reach to that condition.

    Args:
        table: from `misaligned`, of one seed.
        radius: DFT bins.
    Raises:
        ValueError: several seeds.
    """
    rows = of_one_seed(table)[(table["cut"] == "fourier") & (table["radius"] == radius)]
    batch_norm = set(table.loc[table["bn_stats"] == "batch", "panel"])
    cells = {}
    for row in rows.itertuples():
        for bn_stats in BN_STATS:
            if row.bn_stats == bn_stats or row.panel not in batch_norm:
                cells.setdefault((bn_stats, row.feed), {})[FIG2_TITLES[row.panel]] = _beside_chance(row)
    frame = pd.DataFrame.from_dict(cells, orient="index").sort_index(ascending=False, kind="stable").fillna("not asked")
    return frame.assign(paper="~600" if radius == 12 else "not published").rename_axis(["statistics", "feed"])


def by_cut(table: pd.DataFrame) -> pd.DataFrame:
    """Counts of misaligned images by the Fourier split and by the truncated SVD, raw, running statistics.

    Args:
        table: from `misaligned`, of one seed.
    Returns:
        A row a radius, a column a network and cut; cells such as "185 (by chance 118)".
    Raises:
        ValueError: several seeds.
    """
    rows = of_one_seed(table)[
        (table["feed"] == "raw") & (table["bn_stats"] == "running") & table["radius"].isin(PAPER_RADII)
    ]
    titles = {"fourier": "Fourier split", "svd": "truncated SVD"}
    cells = [_beside_chance(row) for row in rows.itertuples()]
    rows = rows.assign(column=rows["panel"].map(FIG2_TITLES) + ": " + rows["cut"].map(titles), cell=cells)
    wide = rows.pivot(index="radius", columns="column", values="cell")
    return wide[sorted(wide.columns)].rename_axis(columns=None)


def recount(runs: Mapping[str, Run], images: Tensor, labels: Tensor, table: pd.DataFrame, feed: Feed,
            bn_stats: BnStats) -> pd.DataFrame:  # fmt: skip
    """Count again from the weights, and compare with the counts of stored answers.

    Args:
        runs: by panel; at width 16 each takes a few seconds a radius on two CPU cores.
        images: (N, 3, H, W) float in [0, 1].
        labels: (N,) int64.
        table: from `misaligned`, of one seed.
        feed, bn_stats: the condition.
    Returns:
        A row a (panel, radius): now and stored, counts. They may differ by a few images: bfloat16 rounds otherwise in
        another batch or on another machine.
    Raises:
        ValueError: several seeds.
    """
    rows, table = [], of_one_seed(table)
    for panel, run in runs.items():
        own = table[(table["panel"] == panel) & (table["cut"] == "fourier") & (table["feed"] == feed)]
        own = own[own["bn_stats"] == (bn_stats if run.recipe.norm == "batch" else "running")].set_index("radius")
        made = count_by_radius(run.model(), images, labels, list(own.index), feed=feed, bn_stats=bn_stats)
        rows += [{"panel": panel, "radius": radius, "now": now, "stored": own.loc[radius, "misaligned"]}
                 for radius, now in zip(own.index, made, strict=True)]  # fmt: skip
    return pd.DataFrame(rows)
