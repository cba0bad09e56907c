"""BatchNorm's lead over vanilla training by the width of the network, after the first epochs of the set-up as stated.

The chapters on heuristics and on BatchNorm show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

import pandas as pd

from hfclib.charts import CHART, NETWORK_COLOURS, Look, drawn_in, intervals, legend, panels
from hfclib.paper.batch_statistics import PAIR, TEST_BATCH, measured_cells, stored, table
from hfclib.paper.claims import evaluate
from hfclib.paper.intervals import MissingRunError
from hfclib.paper.paper_values import FIG4_VALUES
from hfclib.paper.presets import TITLES, Preset, pair_recipes
from hfclib.paper.tables import (
    CONDITION_TITLES,
    decimals,
    gather,
    table_cells,
    text_table,
    with_interval,
)
from hfclib.runs.collect import Runs, published_runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {title: name for name, title in CONDITION_TITLES.items()} | {TEST_BATCH: TEST_BATCH}
MISSING = "run missing"
EPOCHS, _RADIUS = 16, 4  # after how many epochs the lead is measured, and where images are cut, in DFT bins


def stated_pair(preset: Preset, end: str = "") -> Runs:
    """All published runs of `pair_recipes`."""
    return published_runs(pair_recipes(preset, end))


def width_runs() -> dict[int, Runs]:
    """All published runs of vanilla and batchnorm with the set-up as stated, by width; some have had 16 epochs only."""
    return {16: stated_pair("narrow"), 32: stated_pair("narrow", "_w32"), 64: stated_pair("paper", "_16")}


def leads_by_width(runs: Mapping[int, Runs]) -> pd.DataFrame:
    """BatchNorm's lead over vanilla training on the HFC at r = 4 after EPOCHS epochs, by width and measurement.

    Args:
        runs: by width, of vanilla and batchnorm (`width_runs`). Of one that was trained for longer, the curves are read
            after EPOCHS: where the learning rate is constant, the first epochs of a training are a shorter training.
            The weights of that epoch are not kept, so that what is measured with test-batch statistics for both is
            missing there.
    Returns:
        One row per width and measurement: width, measured; lead, low and high, its 95 % interval, infinite with one
        seed; seeds; images, of the test set; of each network its accuracy on these images and on the HFC, such as
        vanilla_test and vanilla_hfc, means over seeds; missing, why there is no lead, or "".
    """
    rows = []
    for (width, pair), measured in product(runs.items(), _NAMES):
        row = {"width": width, "measured": measured, "missing": ""}
        try:
            row |= _lead(pair, measured)
        except MissingRunError as error:
            row["missing"] = str(error)
        rows.append(row)
    columns = ["lead", "low", "high", "seeds", "images", *(f"{name}_{of}" for of in ("test", "hfc") for name in PAIR)]
    return pd.DataFrame(rows, columns=["width", "measured", *columns, "missing"])


def _lead(pair: Runs, measured: str) -> dict[str, float]:
    if set(pair) != set(PAIR):
        raise MissingRunError(MISSING)
    longer = any(run.recipe.epochs > EPOCHS for run in pair.all())
    accuracies = gather(pair, "curves" if longer else "final")
    cells = table_cells(accuracies[accuracies["epoch"] == EPOCHS] if longer else accuracies)
    if measured == TEST_BATCH:
        if longer:
            raise MissingRunError(f"the weights of epoch {EPOCHS} are not kept")
        if any(stored(run) is None for run in pair["vanilla"]):
            raise MissingRunError("not measured")
        cells = pd.concat([cells, measured_cells(table(pair)).query("measured == @TEST_BATCH")])
    name = f"H{_RADIUS}"
    lead = evaluate(f"batchnorm.{name} - vanilla.{name}", cells, _NAMES[measured])
    row = {"lead": lead.mean, "low": lead.low, "high": lead.high, "seeds": lead.seeds}
    chosen = cells[cells["measured"].isin(["", _NAMES[measured]])].groupby(["measure", "variant"])
    for (of, cell), variant in product({"test": "test", "hfc": name}.items(), PAIR):
        row[f"{variant}_{of}"] = chosen["value"].mean()[cell, variant]
    return row | {"images": chosen["n"].max()[name].max()}


def width_table(leads: pd.DataFrame) -> pd.DataFrame:
    """The rows of `leads_by_width` as text; where there is no lead it says why."""
    rows = {}
    for row in leads.to_dict("records"):
        cells = rows[row["width"], row["measured"]] = {"BatchNorm's lead": row["missing"]}
        if not row["missing"]:
            cells["BatchNorm's lead"] = with_interval(row["lead"], row["low"], row["high"])
            for (of, words), variant in product({"test": "test images", "hfc": "HFC"}.items(), PAIR):
                cells[f"{TITLES[variant]}, {words}"] = decimals(row[f"{variant}_{of}"])
            cells |= {name: f"{row[name]:,.0f}" for name in ("seeds", "images")}
    return text_table(rows, ["width", "measured"])


_LOOKS = {
    name: Look(NETWORK_COLOURS["batchnorm"], marker, dashes)
    for name, marker, dashes in zip(_NAMES, "osD", ("-", "--", ":"), strict=True)
}


def width_figure(leads: pd.DataFrame) -> Figure:
    """BatchNorm's lead on the HFC by width, with 95 % intervals over seeds; one seed is a point.

    Args:
        leads: from `leads_by_width`, beside which the paper's lead is drawn, hollow, at its width.
    """
    rows = leads[leads["missing"] == ""].assign(place=leads["width"].astype(str).astype("category"))
    rows["place"] = rows["place"].cat.set_categories([f"{width}" for width in leads["width"].unique()])
    paper = FIG4_VALUES["batchnorm", f"H{_RADIUS}"] - FIG4_VALUES["vanilla", f"H{_RADIUS}"]
    with drawn_in(CHART):
        figure, (ax,) = panels([""], height=2.2, beside=1.6, xlabel=f"BatchNorm's lead on the HFC at r = {_RADIUS}")
        intervals(ax, rows, "place", "measured", _LOOKS, mean="lead", dodge=0.22)
        hollow = Look(NETWORK_COLOURS["batchnorm"], "o", "", hollow=True)
        at = len(rows["place"].cat.categories) - 1 - 0.22
        ax.plot(paper, at, hollow.marker, color=hollow.colour, mfc="white", clip_on=False)
        ax.axvline(0, color="0.3", lw=1)
        ax.set_ylabel("Width of the network")
        handles = [look.handle(name) for name, look in _LOOKS.items()]
        legend(figure, [*handles, hollow.handle("the paper, 100 epochs")], columns=1)
    return figure
