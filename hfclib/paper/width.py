"""BatchNorm's lead over vanilla training on the HFC, by the width of the network and by the epoch.

The networks are those of the set-up as stated, and of the same with crop and flip, in which the learning rate is
constant: the first epochs of a training are a shorter training. The chapters on heuristics and on BatchNorm show them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Literal

import pandas as pd

from hfclib.charts import (
    CHART,
    NETWORK_COLOURS,
    VIBRANT,
    Dashes,
    Look,
    drawn_in,
    intervals,
    legend,
    lines,
    panels,
)
from hfclib.paper.batch_statistics import PAIR, TEST_BATCH, measured_cells, stored, table
from hfclib.paper.claims import evaluate
from hfclib.paper.intervals import MissingRunError
from hfclib.paper.paper_values import FIG4_VALUES
from hfclib.paper.presets import TITLES, Preset, pair_recipes
from hfclib.paper.tables import (
    CONDITION_TITLES,
    CONDITIONS,
    decimals,
    gather,
    select,
    table_cells,
    text_table,
    with_interval,
)
from hfclib.runs.collect import Runs, published_runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = {title: name for name, title in CONDITION_TITLES.items()} | {TEST_BATCH: TEST_BATCH}
MISSING = "run missing"
SetUp = Literal["as stated", "crop and flip"]
# After which widths are compared.
EPOCHS: dict[SetUp, tuple[int, ...]] = {"as stated": (6, 16), "crop and flip": (4, 30)}
_RADIUS = 4  # where images are cut, in DFT bins
_CELL = f"H{_RADIUS}"


def stated_pair(preset: Preset, end: str = "") -> Runs:
    """All published runs of `pair_recipes`."""
    return published_runs(pair_recipes(preset, end))


def width_runs() -> dict[tuple[SetUp, int], Runs]:
    """All published runs of vanilla and batchnorm by set-up and width; some have had a few epochs only.

    With crop and flip, a network of width 64 can have two runs of one seed, of 4 and of 30 epochs.
    """
    four, thirty = (stated_pair("paper", end) for end in ("_cropped4", "_cropped30"))
    return {
        ("as stated", 16): stated_pair("narrow"),
        ("as stated", 32): stated_pair("narrow", "_w32"),
        ("as stated", 64): stated_pair("paper", "_16"),
        ("crop and flip", 16): stated_pair("narrow", "_cropped"),
        ("crop and flip", 64): Runs({name: [*four.get(name, []), *thirty.get(name, [])] for name in PAIR}),
    }


def epoch_runs() -> dict[tuple[SetUp, int], Runs]:
    """`width_runs` with the longest run of each seed only."""
    return {place: _one_per_seed(pair) for place, pair in width_runs().items()}


def leads_by_width(runs: Mapping[tuple[SetUp, int], Runs]) -> pd.DataFrame:
    """BatchNorm's lead over vanilla training on the HFC at r = 4, by set-up, EPOCHS, width and measurement.

    Args:
        runs: of vanilla and batchnorm (`width_runs`), of a seed's the shortest with these epochs. Of one that was
            trained for longer, the curves are read after these epochs. The weights of that epoch are not kept, so
            that what is measured with test-batch statistics for both is missing there.
    Returns:
        One row per set-up, epochs, width and measurement: set_up, epochs, width, measured; lead, low and high, its 95 %
        interval, infinite with one seed; seeds; images, of the test set; of each network its accuracy on these images
        and on the HFC, such as vanilla_test and vanilla_hfc, means over seeds; missing, why there is no lead, or "".
    """
    rows = []
    for ((set_up, width), pair), measured in product(runs.items(), _NAMES):
        for epochs in EPOCHS[set_up]:
            row = {"set_up": set_up, "epochs": epochs, "width": width, "measured": measured, "missing": ""}
            try:
                row |= _lead(pair, measured, epochs)
            except MissingRunError as error:
                row["missing"] = str(error)
            rows.append(row)
    columns = ["lead", "low", "high", "seeds", "images", *(f"{name}_{of}" for of in ("test", "hfc") for name in PAIR)]
    order = ["set_up", "epochs", "width"]
    leads = pd.DataFrame(rows, columns=[*order, "measured", *columns, "missing"])
    return leads.sort_values(order, kind="stable", ignore_index=True)


def _one_per_seed(pair: Runs, epochs: int | None = None) -> Runs:
    """Of each seed the run of fewest epochs that has at least these; of the most, where none are given."""
    chosen = {}
    for name, ones in pair.items():
        enough = [run for run in ones if run.recipe.epochs >= (epochs or 0)]
        ordered = sorted(enough, key=lambda run: run.recipe.epochs, reverse=epochs is not None)
        chosen[name] = list({run.seed: run for run in ordered}.values())
    return Runs(chosen)


def _lead(pair: Runs, measured: str, epochs: int) -> dict[str, float]:
    if not all(pair.get(name) for name in PAIR):
        raise MissingRunError(MISSING)
    trained = min(max(run.recipe.epochs for run in ones) for ones in pair.values())
    if trained < epochs:
        raise MissingRunError(f"trained for {trained} epochs")
    pair = _one_per_seed(pair, epochs)
    longer = any(run.recipe.epochs > epochs for run in pair.all())
    accuracies = gather(pair, "curves" if longer else "final")
    cells = table_cells(accuracies[accuracies["epoch"] == epochs] if longer else accuracies)
    if measured == TEST_BATCH:
        if longer:
            raise MissingRunError(f"the weights of epoch {epochs} are not kept")
        if any(stored(run) is None for run in pair["vanilla"]):
            raise MissingRunError("not measured")
        cells = pd.concat([cells, measured_cells(table(pair)).query("measured == @TEST_BATCH")])
    lead = evaluate(f"batchnorm.{_CELL} - vanilla.{_CELL}", cells, _NAMES[measured])
    row = {"lead": lead.mean, "low": lead.low, "high": lead.high, "seeds": lead.seeds}
    chosen = cells[cells["measured"].isin(["", _NAMES[measured]])].groupby(["measure", "variant"])
    for (of, cell), variant in product({"test": "test", "hfc": _CELL}.items(), PAIR):
        row[f"{variant}_{of}"] = chosen["value"].mean()[cell, variant]
    return row | {"images": chosen["n"].max()[_CELL].max()}


def leads_by_epoch(runs: Mapping[tuple[SetUp, int], Runs]) -> pd.DataFrame:
    """BatchNorm's lead over the vanilla network of its seed on the HFC at r = 4 after each epoch, on 500 test images.

    Args:
        runs: of vanilla and batchnorm, one of each seed (`epoch_runs`); a pair of which no run is there has no rows.
    Returns:
        One row per network pair, measurement and epoch: set_up, width, measured, seed, epoch, lead.
    """
    rows = []
    for (set_up, width), pair in runs.items():
        if not all(pair.get(name) for name in PAIR):
            continue
        curves = gather(pair)
        for measured, condition in CONDITIONS.items():
            hfc = select(curves, [_RADIUS], *condition).query("cell == @_CELL")
            both = hfc.pivot(index=["seed", "epoch"], columns="variant", values="value").dropna()
            leads = (both["batchnorm"] - both["vanilla"]).rename("lead").reset_index()
            rows.append(leads.assign(set_up=set_up, width=width, measured=CONDITION_TITLES[measured]))
    return pd.concat(rows, ignore_index=True)[["set_up", "width", "measured", "seed", "epoch", "lead"]]


def width_table(leads: pd.DataFrame) -> pd.DataFrame:
    """The rows of `leads_by_width` as text; where there is no lead it says why."""
    rows = {}
    for row in leads.to_dict("records"):
        set_up = f"{row['set_up']}, {row['epochs']} epochs"
        cells = rows[set_up, row["width"], row["measured"]] = {"BatchNorm's lead": row["missing"]}
        if not row["missing"]:
            cells["BatchNorm's lead"] = with_interval(row["lead"], row["low"], row["high"])
            for (of, words), variant in product({"test": "test images", "hfc": "HFC"}.items(), PAIR):
                cells[f"{TITLES[variant]}, {words}"] = decimals(row[f"{variant}_{of}"])
            cells |= {name: f"{row[name]:,.0f}" for name in ("seeds", "images")}
    caption = "BatchNorm's lead on the HFC at r = 4, by width; test images with running averages."
    return text_table(rows, ["set-up", "width", "measured"], caption)


_LOOKS = {
    name: Look(NETWORK_COLOURS["batchnorm"], marker, dashes)
    for name, marker, dashes in zip(_NAMES, "osD", ("-", "--", ":"), strict=True)
}
_WIDTH_COLOURS = {16: VIBRANT["blue"], 32: VIBRANT["teal"], 64: VIBRANT["red"]}
_DASHES: dict[SetUp, Dashes] = {"as stated": "--", "crop and flip": "-"}
_PAPER = Look(NETWORK_COLOURS["batchnorm"], "o", "", hollow=True)
_PAPERS_LEAD = FIG4_VALUES["batchnorm", _CELL] - FIG4_VALUES["vanilla", _CELL]


def _draw_papers(ax: Axes, x: float, y: float) -> None:
    ax.plot(x, y, _PAPER.marker, color=_PAPER.colour, mfc="white", clip_on=False)


def width_figure(leads: pd.DataFrame) -> Figure:
    """BatchNorm's lead on the HFC by width, with 95 % intervals over seeds; one seed is a point.

    Args:
        leads: from `leads_by_width`. The paper's lead is drawn beside them, hollow, at its width.
    """
    rows = leads[leads["missing"] == ""].assign(place=leads["width"].astype(str).astype("category"))
    rows["place"] = rows["place"].cat.set_categories([f"{width}" for width in sorted(leads["width"].unique())])
    set_ups = dict(list(rows.groupby(["set_up", "epochs"])))
    with drawn_in(CHART):
        figure, axes = panels(
            [f"{set_up}, {epochs} epochs".capitalize() for set_up, epochs in set_ups],
            height=2.2,
            beside=2,
            xlabel="BatchNorm's lead",
        )
        for ax, own in zip(axes, set_ups.values(), strict=True):
            intervals(ax, own, "place", "measured", _LOOKS, mean="lead", dodge=0.22)
            at = len(rows["place"].cat.categories) - 1 - 0.22
            _draw_papers(ax, _PAPERS_LEAD, at)
            ax.axvline(0, color="0.3", lw=1)
        axes[0].set_ylabel("Width of the network")
        handles = [look.handle(name) for name, look in _LOOKS.items()]
        legend(figure, [*handles, _PAPER.handle("the paper, 100 epochs")], columns=1)
    return figure


def epoch_figure(leads: pd.DataFrame) -> Figure:
    """BatchNorm's lead on the HFC by epoch, a panel for each measurement: means over seeds, shades one sd to each side.

    Args:
        leads: from `leads_by_epoch`. The paper's lead is drawn beside them, hollow, in the first panel, as it was
            measured.
    """
    keys = leads[["set_up", "width"]].drop_duplicates().itertuples(index=False)
    looks = {f"{set_up}, width {width}": Look(_WIDTH_COLOURS[width], dashes=_DASHES[set_up]) for set_up, width in keys}
    rows = leads.assign(name=leads["set_up"] + ", width " + leads["width"].astype(str))
    titles = list(CONDITION_TITLES.values())
    with drawn_in(CHART):
        figure, axes = panels(
            [title.capitalize() for title in titles], xlabel="Epoch", ylabel="BatchNorm's lead", beside=1.9
        )
        for ax, title in zip(axes, titles, strict=True):
            lines(ax, rows[rows["measured"] == title], "epoch", "name", looks, y="lead")
            ax.axhline(0, color="0.3", lw=1)
            ax.set(xscale="log", xticks=[1, 4, 16, 100], xticklabels=["1", "4", "16", "100"])
            ax.minorticks_off()
        _draw_papers(axes[0], 100, _PAPERS_LEAD)
        legend(figure, [*(look.handle(name) for name, look in looks.items()), _PAPER.handle("the paper")])
    return figure
