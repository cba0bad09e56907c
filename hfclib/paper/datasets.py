"""Does what the paper finds on CIFAR-10 hold for other data? The paper's networks on MNIST and Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import Field

from hfclib.charts import CHART, accuracy_by_radius, chance_handle, drawn_in, legend, network_looks, panels, pictures
from hfclib.conditions import PAPER_RADII
from hfclib.data import DATA_SETS, to_float
from hfclib.frequency import split
from hfclib.paper.bands import band_results, fig1_recipes
from hfclib.paper.chapter import Chapter
from hfclib.paper.measurements import MEASUREMENT_COLUMNS, initial_draw
from hfclib.paper.misalignment import counts_over_seeds, predicted_images, stored_predictions
from hfclib.paper.parameters import SeveralSeeds, whole
from hfclib.paper.presets import TITLES, Preset, base_recipe, fig4_recipes
from hfclib.paper.tables import (
    CONDITION_TITLES,
    CONDITIONS,
    by_seed,
    cell_names,
    cells_of_shares,
    gather,
    mean_sd,
    select,
    table_cells,
)
from hfclib.runs.collect import Runs
from hfclib.training.recipe import RADII, Recipe
from hfclib.transforms import feed_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETS = {"cifar10": "cifar10", "mnist": "mnist", "fashion": "fashion-mnist"}  # short names, and `DataConfig.dataset`
HEURISTICS = ("vanilla", "dropout", "mixup", "batchnorm", "adversarial")  # of Fig. 4
_BANDS = {f"{band}{radius}max": (band, radius) for band in ("lfc", "hfc") for radius in (4, 8)}  # of Table 1


def datasets_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks of Fig. 4 and Table 1 on CIFAR-10 and on other data.

    - vanilla, dropout, mixup, batchnorm, adversarial as in Fig. 4, and lfc4max, lfc8max, hfc4max, hfc8max as in
      Table 1, each band divided by its maximum: on CIFAR-10.
    - The same with mnist- and fashion- in front: on MNIST and Fashion-MNIST, with no crop and no flip, which would make
      other digits; at "laptop" 4 epochs of 60,000 images.

    "smoke" has a part of them: vanilla, batchnorm, lfc8max, hfc8max.

    Source: paper, section 5.2, Fig. 5, and section 4.1, Table 1; the blog's remark that HFC may be specific to one data
    set.
    """
    base = base_recipe(preset)
    changes = {"augment": False, "train_images": base.data.train_images if preset == "smoke" else 60_000}
    changes |= {"epochs": 4} if preset == "laptop" else {}
    by_band = fig1_recipes(preset)
    bands = {
        name: by_band[f"hfc{radius}max"].with_(name=f"{base.name}-{name}", train_band=band)
        for name, (band, radius) in _BANDS.items()
    }
    plain = fig4_recipes(preset) | bands
    if preset == "smoke":
        plain = {name: plain[name] for name in ("vanilla", "batchnorm", "lfc8max", "hfc8max")}
    variants = dict(plain)
    for word, data in list(SETS.items())[1:]:
        for name, recipe in plain.items():
            variant = f"{word}-{name}"
            variants[variant] = recipe.with_(name=f"{base.name}-{variant}", dataset=data, **changes)
    return variants


# ---- the table


# Data and network of each variant.
PLACES = {
    (network if data == "cifar10" else f"{data}-{network}"): (data, network)
    for data in SETS
    for network in (*HEURISTICS, *_BANDS)
}


def datasets_table(runs: Runs) -> pd.DataFrame:
    """The chapter's table: what runs record after training, and how many of their test images are misaligned.

    Args:
        runs: by variant, at least one.
    Returns:
        The rows of `gather(runs, "final")` with a column `data`: "cifar10", "mnist" or "fashion"; variants without
        that word in front. The measure "misaligned" is the share of misaligned test images, both bands fed raw, with
        running averages, where predictions are stored.
    """
    found = pd.concat([gather(runs, "final"), *_misaligned(runs)], ignore_index=True)
    data, network = zip(*found["variant"].map(PLACES), strict=True)
    return found.assign(data=data, variant=network)


def _misaligned(runs: Runs) -> Iterator[pd.DataFrame]:
    for data in DATA_SETS:
        own = Runs({variant: ones for variant, ones in runs.items() if ones and ones[0].recipe.data.dataset == data})
        predictions = stored_predictions(own)
        labels = DATA_SETS[data].embedded("test")[1]
        counts = counts_over_seeds(predictions, labels[: predicted_images(predictions)])
        if len(counts):
            rows = counts.query("cut == 'fourier' and feed == 'raw' and bn_stats == 'running'")
            draws = {variant: initial_draw(ones[0].recipe) for variant, ones in own.items()}
            rows = rows.assign(split="test", measure="misaligned", draw=rows["variant"].map(draws), attack="none")
            rows = rows.assign(value=rows["misaligned"] / rows["images"]).rename(columns={"images": "n"})
            yield rows.reindex(columns=MEASUREMENT_COLUMNS).astype({"radius": "Int64", "epoch": "Int64"})


# ---- claims: written before any network on MNIST or Fashion-MNIST was trained


def title_of(data: str) -> str:
    """The title of a data set by its short name."""
    return DATA_SETS[SETS[data]].title


def accuracy_by_seed(table: pd.DataFrame, data: str, variant: str, cell: str) -> pd.Series:
    """A network's accuracies by seed, bands fed raw or with the mean colour, with running averages; maybe none.

    Args:
        table: from `datasets_table`.
        cell: as in `select`.
    """
    own = table[(table["data"] == data) & (table["variant"] == variant)]
    rows = select(own, RADII, *CONDITIONS["controlled"])
    return by_seed(rows, "cell").reindex(columns=[cell])[cell].dropna()


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """The cells of the claims, of networks such as "mnist_vanilla": those of `table_cells`, and "misaligned8"."""
    table = table.assign(variant=table["data"] + "_" + table["variant"])
    misaligned = table[table["measure"] == "misaligned"]
    misaligned = cells_of_shares(misaligned.assign(measure=cell_names(misaligned), measured=""))
    cells = pd.concat([table_cells(table), misaligned], ignore_index=True)
    return cells.assign(sample=cells["data"] + " " + cells["split"])


def _cell_variants(preset: Preset) -> list[str]:
    return ["_".join(PLACES[name]) for name in datasets_recipes(preset)]


# ---- what the notebook shows

_MISSING = "not stored"


def examples_of_bands(radius: int) -> Figure:
    """The first two test images of each set, their LFC and their HFC with the mean colour, at a radius in DFT bins."""
    columns = {}
    for data in SETS:
        images = to_float(DATA_SETS[SETS[data]].embedded("test")[0][:2])
        low, high = split(images, radius)
        fed = images, low, feed_images(high, "mean", add_mean=True, colour=DATA_SETS[SETS[data]].mean)
        for number in range(2):
            for name, parts in zip(("image", "LFC", "HFC"), fed, strict=True):
                columns.setdefault((number, name), []).append(parts[number])
    return pictures([name for _, name in columns], list(columns.values()), list(map(title_of, SETS)), side=1.45)


def heuristics_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of the networks of Fig. 4 on all three sets, under both of `CONDITIONS` (column "measured")."""
    rows = table[table["data"].isin(list(SETS)) & table["variant"].isin(HEURISTICS)]
    parts = [select(rows, PAPER_RADII, *condition).assign(measured=name) for name, condition in CONDITIONS.items()]
    return pd.concat(parts, ignore_index=True)


def heuristics_figure(rows: pd.DataFrame) -> Figure:
    """HFC accuracy against the radius: a row of panels per data set, a panel per condition.

    Args:
        rows: from `heuristics_rows`.
    Returns:
        A Figure; points are means over seeds, bars one sample standard deviation. A network that is not stored is
        named in its panel; a data set without any has none.
    """
    looks, drawn = network_looks(HEURISTICS), [data for data in SETS if data in set(rows["data"])]
    shown = list(product(drawn, CONDITIONS))
    with drawn_in(CHART):
        titles = [f"{title_of(data)},\n{CONDITION_TITLES[name].removeprefix('measured ')}" for data, name in shown]
        figure, axes = panels(titles, beside=1.6, xlabel="Radius (DFT bins)", ylabel="Accuracy on the HFC")
        for ax, (data, name) in zip(axes, shown, strict=True):
            own = rows[(rows["measured"] == name) & (rows["data"] == data) & (rows["band"] == "hfc")]
            accuracy_by_radius(ax, own, looks)
            absent = [TITLES[variant] for variant in HEURISTICS if variant not in set(own["variant"])]
            if absent:
                said = "\n".join(["not stored:", *absent])
                ax.text(0.98, 0.97, said, ha="right", va="top", fontsize=12, transform=ax.transAxes)
        there = set(rows.loc[rows["band"] == "hfc", "variant"])  # a network may be in some panels only
        handles = [look.handle(TITLES[variant]) for variant, look in looks.items() if variant in there]
        legend(figure, [*handles, chance_handle()])
    return figure


def _by_network(rows: pd.DataFrame, columns: str, cell: Callable[[pd.Series], str]) -> pd.DataFrame:
    """One row per data set and network with rows, cells made of its accuracies; one row that says so without any."""
    names = TITLES | {name: f"{band.upper()}, r = {radius}" for name, (band, radius) in _BANDS.items()}
    rows = rows[rows["data"].isin(list(SETS)) & rows["variant"].isin(list(names))]
    if rows.empty:
        return pd.DataFrame({"data": [_MISSING]}).set_index("data")
    rows = rows.assign(data=rows["data"].map(title_of), network=rows["variant"].map(names))
    table = rows.pivot_table("value", ["data", "network"], columns, aggfunc=cell, sort=False)
    return table.fillna("\u2013").rename_axis(columns=None)


def heuristics_table(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies measured as the authors did, one row per data set and network that is stored; text, mean ± sd."""
    rows = heuristics_rows(table)
    rows = rows[rows["measured"] == "authors"]
    hfc_first = rows.sort_values("band", key=lambda band: band == "lfc", kind="stable")
    return _by_network(hfc_first, "cell", mean_sd)


def misaligned_counts(table: pd.DataFrame, radius: int) -> pd.DataFrame:
    """Misaligned test images of 10,000, vanilla and BatchNorm, bands fed raw, running averages: means over seeds, text.

    One row per data set and network whose predictions are stored.

    Args:
        table: from `datasets_table`.
        radius: DFT bins, shown beside 4, 8, 12, 16.
    """
    pair = table[(table["measure"] == "misaligned") & table["variant"].isin(["vanilla", "batchnorm"])]
    rows = pair[pair["radius"].isin([*PAPER_RADII, radius])]
    rows = rows.assign(at="r = " + rows["radius"].astype(str))
    return _by_network(rows, "at", lambda shares: f"{10_000 * shares.mean():.0f}")


def trained_on_bands(table: pd.DataFrame) -> pd.DataFrame:
    """Table 1 on three data sets: networks trained on a band, each divided by its maximum; text, mean ± sd.

    One row per data set and network that is stored; columns training images, original test images, same band of test
    images.
    """
    own = table[table["variant"].isin(list(_BANDS))]
    results = pd.concat([band_results(own[own["data"] == data]) for data in SETS])
    return _by_network(results, "tested on", mean_sd).rename_axis(index={"network": "trained on"})


# ---- the chapter


class DatasetsParameters(SeveralSeeds):
    """The parameters of `notebooks/datasets.ipynb`."""

    radius: whole(1, DATA_SETS["mnist"].radii[-1], "a whole number of DFT bins") = Field(
        8, title="where example images are cut and misaligned ones are counted"
    )


DATASETS = Chapter(
    name="datasets",
    question="Is the HFC specific to one data set?",
    topic="data sets",
    paper="conclusion",
    blog="conclusion",
    builds_on=("fig1", "fig4"),
    figures={
        "datasets-heuristics": "training",
        "datasets-bands": "images",
    },
    recipes=datasets_recipes,
    parameters=DatasetsParameters,
    required=("vanilla", "batchnorm"),
    needs_weights=("batchnorm",),
    evidence=datasets_table,
    cells=_cells,
    measures=r"test|[LH]\d+|misaligned\d+",
    cell_variants=_cell_variants,
)
