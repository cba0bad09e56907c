"""Fig. 4 (the paper's Fig. 5): do training heuristics change how much of the HFC a network uses?

Its recipes are `presets.fig4_recipes`, since other chapters take networks from there. What a network is fed and which
statistics BatchNorm uses are in `tables.CONDITIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import Field

from hfclib.charts import (
    CHART,
    accuracy_by_epoch,
    accuracy_by_radius,
    chance_handle,
    drawn_in,
    epoch_handles,
    legend,
    network_looks,
    panels,
)
from hfclib.conditions import BN_STATS, PAPER_RADII, BnStats
from hfclib.paper.batch_statistics import PAIR, TEST_BATCH, measured_cells, stored
from hfclib.paper.batch_statistics import table as batch_table
from hfclib.paper.chapter import Chapter
from hfclib.paper.claims import Contrast, evaluate
from hfclib.paper.measurements import each_run, preset_of
from hfclib.paper.paper_values import FIG4_VALUES
from hfclib.paper.parameters import FeedChoice, Radii, SeveralSeeds, StatisticsChoice
from hfclib.paper.presets import TITLES, Preset, fig4_recipes, stated_recipes, titled
from hfclib.paper.tables import (
    CONDITION_TITLES,
    CONDITIONS,
    TableFeed,
    band_names,
    contrast_rows,
    contrast_text,
    decimals,
    gather,
    mean_sd,
    select,
    table_cells,
    text_table,
)
from hfclib.paper.verdicts import ENOUGH
from hfclib.paper.width import stated_pair
from hfclib.runs.collect import Runs, published_runs
from hfclib.runs.store import Run
from hfclib.training.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# ---- recipes


def ablation_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """vanilla and batchnorm without augmentation: vanilla_noaug, batchnorm_noaug.

    Source: ours: "laptop" departs from the paper in schedule, batch size, length and augmentation; this takes back one.
    Where the preset has no augmentation anyway, there is none to take back and no recipe.
    """
    variants = fig4_recipes(preset)
    augmented = {variant: variants[variant] for variant in ("vanilla", "batchnorm") if variants[variant].data.augment}
    return {
        f"{variant}_noaug": recipe.with_(name=f"{recipe.name}_noaug", augment=False)
        for variant, recipe in augmented.items()
    }


DRAWN_COLUMNS = ["variant", "seed", "epoch", "cell", "value"]  # of curves; the rest is the same in all rows

# ---- tables


def beside_paper(final: pd.DataFrame, radii: Sequence[int], feed: TableFeed, bn_stats: BnStats) -> pd.DataFrame:
    """End-of-training accuracies of each network: our mean ± sd over seeds, and the paper's value.

    Returns:
        Index measure, columns (title, "ours" or "paper"), text cells; "not available to us" where we know of none. A
        measure that is recorded under another condition than the one asked for (`select`) says so. The sd is the
        sample standard deviation; a single seed has none.
    """
    rows = select(final, radii, feed, bn_stats)
    others = band_names(set(radii) - set(PAPER_RADII)) if (feed, bn_stats) != ("raw", "running") else ()
    ours = rows.groupby(["variant", "cell"], sort=False)["value"].agg(mean_sd)
    cells, columns, titles = ["train", "test", *band_names(radii)], {}, titled(rows["variant"])
    for variant in dict.fromkeys(rows["variant"]):
        paper = (FIG4_VALUES.get((variant, cell)) for cell in cells)
        columns[titles[variant], "ours"] = ours[variant][cells].tolist()
        columns[titles[variant], "paper"] = [decimals(value, 2) if value else "not available to us" for value in paper]
    names = [f"{cell} (raw, running)" if cell in others else cell for cell in cells]
    table = pd.DataFrame(columns, pd.Index(names, name="accuracy on"))
    table.attrs["caption"] = f"Ours, fed {feed}, {bn_stats} statistics."
    return table


def beside_narrow(
    runs: Mapping[str, Sequence[Run]], narrow: Mapping[str, Sequence[Run]], radii: Sequence[int]
) -> pd.DataFrame:
    """Networks by the schedule as stated beside ours and the paper, measured as the authors did; as `beside_paper`.

    Args:
        runs: of one preset, whose name stands above their column; a network that is not among them has none.
        narrow: the runs of "narrow", one variant or more.
        radii: DFT bins.
    """
    ours, theirs = (
        beside_paper(gather(networks, "final"), radii, *CONDITIONS["authors"]) for networks in (runs, narrow)
    )
    preset = preset_of(next(run.recipe for _, run in each_run(runs)))
    columns = {}
    for title in theirs.columns.unique(level=0):
        if title in ours:
            columns[title, preset] = ours[title, "ours"]
        columns[title, "narrow"] = theirs[title, "ours"]
        columns[title, "paper"] = theirs[title, "paper"]
    return pd.DataFrame(columns).rename_axis("accuracy on")


def leads(ours: pd.DataFrame, narrow: pd.DataFrame) -> pd.DataFrame:
    """How much more accurate than vanilla training a heuristic is on the HFC, mean of r = 4 and 8, by schedule.

    Args:
        ours, narrow: tables from `gather(runs, "final")`, of networks with our schedule and with the paper's.
    Returns:
        Index (heuristic, measured), columns the two schedules, with 95 % intervals over all seeds, and the paper's
        lead, which was measured in the authors' way only; text cells.
    """
    cells, rows = {"our schedule": table_cells(ours), "the schedule as stated": table_cells(narrow)}, {}
    for variant, (measured, title) in product(("dropout", "mixup", "batchnorm"), CONDITION_TITLES.items()):
        gain = _gain(variant, "H4", "H8")
        row = {name: contrast_text(gain, own, measured, without="not stored") for name, own in cells.items()}
        paper = {"paper": decimals(Contrast(gain)(FIG4_VALUES))} if measured == "authors" else {}
        rows[TITLES[variant], title] = row | paper
    return text_table(rows, ["heuristic", "measured"], "Leads over vanilla training, mean of r = 4 and 8.")


def set_ups() -> dict[str, Runs]:
    """All published runs of vanilla and batchnorm, under these names, by set-up in words."""
    unaugmented = ablation_recipes()
    return {
        "our schedule": stated_pair("laptop"),
        "our schedule, no crop and flip": published_runs({name: unaugmented[f"{name}_noaug"] for name in PAIR}),
        "as stated": stated_pair("narrow"),
        "as stated, with crop and flip": stated_pair("narrow", "_cropped"),
        "as stated, 16 epochs, width 32": stated_pair("narrow", "_w32"),
        "as stated, 16 epochs, width 64": stated_pair("paper", "_16"),
        "crop and flip, 30 epochs, width 64": stated_pair("paper", "_cropped30"),
        "the authors' code": stated_pair("authors"),
    }


_LEVELS = "{}, train / test"
_OF_BANDS = f"farthest of 8 bands: {', '.join(TITLES[name] for name in PAIR)}"


def set_ups_table(set_ups: Mapping[str, Runs]) -> pd.DataFrame:
    """How near each set-up comes to the paper's accuracies on training and test images, and BatchNorm's lead there.

    Args:
        set_ups: from `set_ups`.
    Returns:
        One row per set-up, and one for the paper; text: BatchNorm's lead on the HFC at r = 4 in both measurements and,
        where it is stored, with test-batch statistics for both, with 95 % intervals, or of each pair where there are
        fewer than three, or that the runs are missing; each network's accuracy on training and on test images, means
        over seeds, running averages; the largest of a seed's four distances to the paper's, mean over seeds, in
        brackets with the test batch; of each network the same of its eight distances on bands, measured as the authors
        did, and of the network that is farthest, if that is more. The index has the number of seeds in brackets.
    """
    levels = {_LEVELS.format(TITLES[name]): (f"{name}.train", f"{name}.test") for name in PAIR}
    whole = [cell for pair in levels.values() for cell in pair]
    bands = [[f"{name}.{band}" for band in band_names(PAPER_RADII)] for name in PAIR]
    lead, rows = _gain("batchnorm", "H4"), {}
    as_authors = f"lead, {CONDITION_TITLES['authors']}"
    for title, runs in set_ups.items():
        pairs = set.intersection(*({run.seed for run in runs.get(name, [])} for name in PAIR))
        final = gather(runs, "final") if runs else None
        cells = table_cells(final) if runs else None
        accuracies = {_LEVELS.format(TITLES[name]): _level(name, cells) for name in PAIR if name in runs}
        if not pairs:
            rows[title] = {as_authors: "run missing"} | accuracies
            continue
        row = {f"lead, {words}": _each_or_interval(lead, cells, name) for name, words in CONDITION_TITLES.items()}
        if all(stored(run) is not None for run in runs["vanilla"]):
            row[f"lead, {TEST_BATCH}"] = _each_or_interval(lead, measured_cells(batch_table(runs)), TEST_BATCH)
        row |= accuracies
        batch = select(final, [], "raw", "batch")
        with_batch = decimals(_farthest(whole, batch.assign(measure=batch["cell"], measured="")))
        row["farthest (test batch)"] = f"{decimals(_farthest(whole, cells))} ({with_batch})"
        row[_OF_BANDS] = ", ".join(_farthest_band(own, cells) for own in bands)
        rows[f"{title} ({len(pairs)})"] = row
    published = {name: [decimals(Contrast(cell)(FIG4_VALUES), 2) for cell in pair] for name, pair in levels.items()}
    paper = {name: " / ".join(pair) for name, pair in published.items()}
    rows["the paper"] = paper | {as_authors: decimals(Contrast(lead)(FIG4_VALUES), 2)}
    farthest = "Farthest: largest distance from the paper's, mean over seeds."
    return text_table(rows, ["set-up (seeds)"], f"Leads at r = 4; train, test: running averages. {farthest}")


def _level(name: str, cells: pd.DataFrame) -> str:
    return " / ".join(contrast_text(f"{name}.{split}", cells) for split in ("train", "test"))


def _each_or_interval(contrast: str, cells: pd.DataFrame, measured: str) -> str:
    """A contrast over seeds with its interval; of fewer than ENOUGH pairs each, as they have none to speak of."""
    variants = {variant for variant, _ in Contrast(contrast).cells}
    by_variant = [set(rows["seed"]) for variant, rows in cells.groupby("variant") if variant in variants]
    seeds = sorted(set.intersection(*by_variant))
    ones = [cells[cells["seed"] == seed] for seed in seeds] if len(seeds) < ENOUGH else [cells]
    return " and ".join(contrast_text(contrast, own, measured) for own in ones)


def _farthest(names: Sequence[str], cells: pd.DataFrame, measured: str = "") -> float:
    """The largest distance of these cells from the paper's values, mean over seeds."""
    distances = ", ".join(f"abs({name} - {FIG4_VALUES[tuple(name.split('.'))]})" for name in names)
    return evaluate(f"max({distances})", cells, measured).mean


def _farthest_band(names: Sequence[str], cells: pd.DataFrame) -> str:
    """`_farthest` of cells of one variant, as text, with that of the network that is farthest, if it is more."""
    own = cells[cells["variant"] == names[0].partition(".")[0]]
    mean = decimals(_farthest(names, own, "authors"))
    most = decimals(max(_farthest(names, one, "authors") for _, one in own.groupby("seed")))
    return mean if most == mean else f"{mean} (at most {most})"


def batchnorm_effect(final: pd.DataFrame) -> pd.DataFrame:
    """BatchNorm's HFC accuracy minus vanilla's, under each feed and each kind of statistics.

    Returns:
        Index (statistics, feed), one column per radius of the paper, text cells "mean [low, high]", 95 % over seeds;
        the last row has the paper's differences, measured with statistics "batch" and feed "max".
    """
    leads, rows = {f"r = {radius}": _gain("batchnorm", f"H{radius}") for radius in PAPER_RADII}, {}
    for bn_stats, feed in product(BN_STATS[::-1], ("max", "raw", "mean")):
        rows |= contrast_rows({(bn_stats, feed): leads}, table_cells(final, {"": (feed, bn_stats)}))
    rows["paper", "max"] = {name: decimals(Contrast(lead)(FIG4_VALUES), 2) for name, lead in leads.items()}
    return text_table(rows, ["statistics", "feed"])


# ---- drawings


def curves_figure(rows: pd.DataFrame, *, paper: bool = False) -> Figure:
    """Accuracy after each epoch, one panel per network: whole images in grey and black, bands in radius colours.

    Args:
        rows: curves from `select`.
        paper: draw the paper's values, too, as hollow marks at the last epoch.
    Returns:
        A Figure; lines are means over seeds, shades one sample standard deviation to each side.
    Raises:
        ValueError: no rows.
    """
    if rows.empty:
        raise ValueError("expected curves, got an empty table")
    titles = titled(rows["variant"])
    bands = rows[rows["band"] != "x"]
    usual = bands[bands["radius"].isin(PAPER_RADII)]
    raw = set(usual["feed"] + usual["bn_stats"]) == {"rawrunning"}  # the condition of all radii
    others = {radius: " (raw, running)" for radius in bands["radius"] if radius not in PAPER_RADII and not raw}
    with drawn_in(CHART):
        figure, axes = panels(list(titles.values()), beside=2.6, xlabel="Epoch", ylabel="Accuracy (share of images)")
        for variant, ax in zip(titles, axes, strict=True):
            values = {cell: value for (network, cell), value in FIG4_VALUES.items() if network == variant and paper}
            accuracy_by_epoch(ax, rows[rows["variant"] == variant], values)
        legend(figure, epoch_handles(rows, ("x", "lfc", "hfc") if paper else (), others))
    return figure


def hfc_by_condition(final: pd.DataFrame) -> Figure:
    """HFC accuracy after training against the radius, one panel per condition of `CONDITIONS`.

    Args:
        final: a table from `gather(runs, "final")`.
    Returns:
        A Figure; points are means over seeds, bars one sample standard deviation to each side.
    """
    titles = titled(final["variant"])
    looks = network_looks(titles)
    with drawn_in(CHART):
        figure, axes = panels(
            list(map(str.capitalize, CONDITION_TITLES.values())),
            height=2.6,
            beside=1.4,
            xlabel="Radius (DFT bins)",
            ylabel="Accuracy on the HFC",
        )
        for ax, condition in zip(axes, CONDITIONS.values(), strict=True):
            accuracy_by_radius(ax, select(final, PAPER_RADII, *condition).query("band == 'hfc'"), looks)
        legend(figure, [*(look.handle(titles[variant]) for variant, look in looks.items()), chance_handle()])
    return figure


# ---- contrasts


def _gain(variant: str, *measures: str) -> str:
    """The contrast of a variant's accuracy less vanilla's, mean of measures."""
    return f"mean({', '.join(f'{variant}.{measure} - vanilla.{measure}' for measure in measures)})"


# ---- the chapter


class Fig4Parameters(SeveralSeeds):
    """The parameters of `notebooks/fig4.ipynb`."""

    radius: Radii = Field(PAPER_RADII, title="radii to draw")
    feed: FeedChoice = Field("mean", title="what a network is fed of a band, in the last figure by epoch")
    bn_stats: StatisticsChoice = Field("running", title="what BatchNorm normalises by, with this feed")


FIG4 = Chapter(
    name="fig4",
    question="Do training heuristics change how much of the HFC a network uses?",
    topic="heuristics",
    paper="Fig. 5",
    blog="Fig. 4",
    figures={
        "fig4-by-condition": "training",
        "fig4-by-epoch": "training",
        "fig4-by-width": "afterwards",
        "fig4-published": "training",
        "fig4-controlled": "training",
    },
    recipes=fig4_recipes,
    claimed=lambda preset: fig4_recipes(preset) | stated_recipes(preset),
    parameters=Fig4Parameters,
    titles={"vanilla_noaug": "Vanilla, no augmentation", "batchnorm_noaug": "BatchNorm, no augmentation"},
    required=("vanilla", "dropout", "mixup", "batchnorm"),
    needs_weights=("batchnorm",),
    evidence=partial(gather, which="final"),
)
