"""Natural and shuffled labels (the paper's Fig. 3): through which band is a training image learnt, and when?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from hfclib.charts import CHART, VIBRANT, Look, accuracy_by_epoch, drawn_in, epoch_handles, legend, lines, panels
from hfclib.conditions import PAPER_RADII, Condition
from hfclib.paper.chapter import Chapter
from hfclib.paper.claims import Contrast
from hfclib.paper.measurements import MEASUREMENT_COLUMNS, each_run, measurements
from hfclib.paper.parameters import PaperRadius, SeveralSeeds, several
from hfclib.paper.presets import Preset, base_recipe
from hfclib.paper.tables import (
    band_names,
    cell_names,
    cells_of_shares,
    contrast_rows,
    contrast_text,
    decimals,
    mean_sd,
    text_table,
)
from hfclib.runs.collect import Runs
from hfclib.runs.predictions import predictions_of
from hfclib.training.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def labels_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """Networks trained on natural and on shuffled labels, with BatchNorm and without: natural, shuffled, natural_plain,
    shuffled_plain. The bands of their training images are measured too.

    "laptop" trains on the 5,000 embedded images without augmentation. Without BatchNorm it has a rate of 3e-4 and three
    times the epochs, with both kinds of labels: at .001, shuffled ones are not learnt (the notebook has the trials).
    Other presets keep their own images and schedule, and in all but "smoke" shuffled labels have three times the epochs
    of natural ones, as in the paper.

    Source: paper, section 4.2 and Fig. 3.
    """
    base = base_recipe(preset).with_(train_bands=True, augment=False)
    by_norm = {"": {"norm": "batch"}, "_plain": {}}
    longer = 1 if preset in ("laptop", "smoke") else 3
    if preset == "laptop":
        base = base.with_(schedule="constant", epochs=20, batch_size=64, train_images=5_000, eval_images=500)
        by_norm["_plain"] = {"learning_rate": 3e-4, "epochs": 60}
    chosen = {}
    for suffix, change in by_norm.items():
        natural = base.with_(name=f"{base.name}-natural{suffix}", **change)
        epochs = longer * natural.epochs
        shuffled = natural.with_(name=f"{base.name}-shuffled{suffix}", labels="shuffled", epochs=epochs)
        chosen |= {f"natural{suffix}": natural, f"shuffled{suffix}": shuffled}
    return chosen


# ---- tables

KINDS = ("natural", "shuffled")  # of labels
# Read off the paper's Fig. 3, to about .03: accuracy on training images and their LFC at the end of training.
LABELS_PUBLISHED = {
    "natural": {"train": 0.98, "L4": 0.27, "L8": 0.65, "L12": 0.91, "L16": 0.97},
    "shuffled": {"train": 0.97, "L4": 0.14, "L8": 0.53, "L12": 0.90, "L16": 0.97},
}


def labels_table(runs: Runs) -> pd.DataFrame:
    """The chapter's table: accuracies on images and their bands at r = 4, 8, 12, 16, fed raw, with running averages.

    Args:
        runs: by variant.
    Returns:
        The `measurements`, after each epoch on the recipe's `eval_images` of each set, at "laptop" 500, and after
        training on up to 5,000 training images and its `final_images` test images, at "laptop" 10,000; and their cell:
        "train", "test", or band and radius such as "L4". Training images have the labels of the training, test images
        their own.
    """
    tables = [
        measurements(stored, variant, run) for variant, run in each_run(runs) for stored in (run.curves, run.final)
    ]
    rows = pd.concat(tables, ignore_index=True)[MEASUREMENT_COLUMNS]
    rows = rows[(rows["feed"] == "raw") & (rows["bn_stats"] == "running") & (rows["attack"] == "none")]
    rows = rows[(rows["band"] == "x") | rows["radius"].isin(PAPER_RADII)]
    return rows.assign(cell=cell_names(rows))


def by_epoch(table: pd.DataFrame, variant: str, measure: str) -> pd.DataFrame:
    """Accuracies on training images after each epoch, from a `labels_table`: one row per epoch, one column per seed."""
    rows = table[table["epoch"].notna()].query("variant == @variant and cell == @measure and split == 'train'")
    return rows.pivot(index="epoch", columns="seed", values="value").astype(float)


def ends(table: pd.DataFrame, variant: str, measure: str) -> pd.Series:
    """Accuracies of a network on training images after training, from a `labels_table`, by seed."""
    rows = table[table["epoch"].isna()].query("variant == @variant and cell == @measure and split == 'train'")
    return rows.set_index("seed")["value"].astype(float)


def at_accuracy(table: pd.DataFrame, variant: str, measure: str, levels: Sequence[float]) -> pd.DataFrame:
    """The accuracy on a band of training images when the accuracy on the images themselves is at one of `levels`.

    The curves are interpolated linearly between the first epoch whose training accuracy is at least the level and the
    epoch before it. A seed has no value, NaN, if it never gets there, or is there after its first epoch.

    Returns:
        One row per level, one column per seed.
    """
    whole, band = by_epoch(table, variant, "train"), by_epoch(table, variant, measure)
    values = pd.DataFrame(np.nan, index=list(levels), columns=whole.columns.intersection(band.columns))
    for seed in values:
        for level in levels:
            after = int((whole[seed] >= level).to_numpy().argmax())  # 0 also if it is never reached
            if after > 0:
                x, y = (curve[seed].iloc[after - 1 : after + 1] for curve in (whole, band))
                values.at[level, seed] = np.interp(level, x, y)
    return values


# ---- claims: written before any network of this chapter was trained

EARLY = 1 / 15  # the paper's shuffled labels stay at chance for about 20 of 300 epochs
# How a claim's version reads, and how the names of its networks end.
VERSIONS = {"batchnorm": ("with BatchNorm", ""), "plain": ("without BatchNorm", "_plain")}


def _peak_and_end(curves: pd.DataFrame) -> pd.DataFrame:
    """By seed, the accuracy at its "peak" and the mean of the last three epochs, "end", from `by_epoch`.

    The highest point of a noisy curve lies above its end by chance alone. So the epoch of the peak is that of the mean
    of the other seeds.
    """
    peaks = {seed: others.idxmax() for seed in curves if len(others := curves.drop(columns=seed).mean(axis=1).dropna())}
    rows = {seed: (curves.at[at, seed], curves[seed].tail(3).mean()) for seed, at in peaks.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["peak", "end"], dtype=float)


def _after_training(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Cells after training: "train" or "test", and the accuracies on bands, such as "L8"."""
    end = table[table["epoch"].isna() & (table["split"] == split)]
    cells = end.assign(measure=end["cell"], measured="", sample=split)
    return cells_of_shares(cells[["variant", "measure", "measured", "sample", "seed", "value", "n"]])


def _of_curves(parts: Mapping[tuple[str, str], pd.Series], table: pd.DataFrame) -> pd.DataFrame:
    """Cells from the accuracies after each epoch: by variant and measure, one value per seed."""
    values = pd.concat(parts, names=["variant", "measure", "seed"])
    images = table.loc[table["epoch"].notna() & (table["split"] == "train"), "n"].min()
    rows = values.rename("value").dropna().reset_index()
    return cells_of_shares(rows.assign(n=images, measured="", sample="train"))


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """The cells of the claims, of training images.

    Those `_after_training`; "L8_at_90" where the training accuracy is .9; "L4_early", the highest of the first share
    EARLY of the epochs; "L4_peak" and "L4_end" (`_peak_and_end`).
    """
    parts = {}
    for variant in table["variant"].unique():
        curves = by_epoch(table, variant, "L4")
        parts[variant, "L8_at_90"] = at_accuracy(table, variant, "L8", [0.9]).loc[0.9]
        parts[variant, "L4_early"] = curves.head(max(1, round(EARLY * len(curves)))).max()
        for name, values in _peak_and_end(curves).items():
            parts[variant, f"L4_{name}"] = values
    return pd.concat([_after_training(table, "train"), _of_curves(parts, table)], ignore_index=True)


# ---- what the notebook shows

# Paul Tol's "vibrant" scheme; no network and no radius has these colours.
COLOURS = {"natural": VIBRANT["blue"], "shuffled": VIBRANT["magenta"]}
LEVELS = tuple(np.arange(0.15, 1, 0.05).round(2))  # training accuracies at which networks are compared in a figure
RUN_MISSING, NOT_REACHED = "run missing", "not reached"


def _trained(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The VERSIONS of which a network is in the table."""
    there = set(table["variant"])
    return [one for one in VERSIONS.values() if there & {f"{labels}{one[1]}" for labels in KINDS}]


def _by_labels(measure: str, suffix: str, difference: str) -> dict[str, str]:
    """The contrasts of one measure: of natural labels, of shuffled ones, and their difference."""
    pair = {labels: f"{labels}{suffix}.{measure}" for labels in KINDS}
    return pair | {difference: " - ".join(pair.values())}


def end_table(table: pd.DataFrame, radii: Sequence[int]) -> pd.DataFrame:
    """Accuracy on training images and their bands after training, ours and the paper's.

    Returns:
        Index measure, columns (labels, "paper", "with BatchNorm" or "without BatchNorm"), text cells: mean ± sample
        standard deviation over seeds; last natural less shuffled labels, with the 95 % interval over seeds.
    """
    rows, differ = ["train", *band_names(radii)], "natural less shuffled"
    published = pd.DataFrame(LABELS_PUBLISHED).reindex(rows)
    published[differ] = published["natural"] - published["shuffled"]
    paper = published.map(partial(decimals, places=2)).where(published.notna(), "not in the paper")
    columns = {"paper": paper.rename_axis("accuracy on")}
    for version, suffix in _trained(table):
        contrasts = {measure: _by_labels(measure, suffix, differ) for measure in rows}
        texts = contrast_rows(contrasts, _after_training(table, "train"), without=RUN_MISSING, alone=mean_sd)
        columns[version] = text_table(texts, ["accuracy on"])
    by_labels = pd.concat(columns, axis=1).swaplevel(axis=1)[[*KINDS, differ]]
    return by_labels.rename(columns={labels: f"{labels} labels" for labels in KINDS}, level=0)


def equal_table(table: pd.DataFrame, radii: Sequence[int], levels: Sequence[float] = (0.5, 0.9)) -> pd.DataFrame:
    """Accuracy on the bands of training images where natural and shuffled labels have the same training accuracy.

    Returns:
        Index (version, measure), columns (training accuracy, "natural", "shuffled" or "difference"), text cells: means
        over the seeds that reach it; the difference has its 95 % interval over seeds.
    """
    measures, there = band_names(radii), set(table["variant"])
    parts = {
        (variant, f"{measure}_at_{100 * level:.0f}"): values
        for variant, measure in product(there, measures)
        for level, values in at_accuracy(table, variant, measure, levels).iterrows()
    }
    cells, rows = _of_curves(parts, table), {}
    for (version, suffix), measure, level in product(_trained(table), measures, levels):
        row = rows.setdefault((version, measure), {})
        for kind, contrast in _by_labels(f"{measure}_at_{100 * level:.0f}", suffix, "difference").items():
            stored = {variant for variant, _ in Contrast(contrast).cells} <= there
            options = {"without": NOT_REACHED if stored else RUN_MISSING, "alone": mean_sd}
            row[f"training accuracy {decimals(level, 1)}", kind] = contrast_text(contrast, cells, **options)
    return text_table(rows, ["networks", "accuracy on"])


def agreement(runs: Runs, radii: Sequence[int]) -> pd.DataFrame:
    """How often a network predicts for a band of a test image what it predicts for the image itself.

    Args:
        runs: by variant; the first of each is used, on its `final_images` test images.
        radii: DFT bins.
    Returns:
        One row per network and band: variant, seed, measure, agreement in [0, 1]. A network of which only tables are
        kept has none.
    """
    rows, wanted = [], [Condition(band, radius) for radius in radii for band in ("lfc", "hfc")]
    for variant, run in ((variant, ones[0]) for variant, ones in runs.items() if ones[0].has_weights):
        answers = predictions_of(run, [Condition("x"), *wanted])
        for band, radius, *_ in wanted:
            share = (answers.on(band, radius) == answers.on("x")).double().mean().item()
            measure = f"{band[0].upper()}{radius}"
            rows.append({"variant": variant, "seed": run.seed, "measure": measure, "agreement": share})
    return pd.DataFrame(rows, columns=["variant", "seed", "measure", "agreement"])


def reading_table(table: pd.DataFrame, agreed: pd.DataFrame, radii: Sequence[int]) -> pd.DataFrame:
    """What a network reads of test images: its accuracy, by their own labels, and how often bands and image agree.

    Args:
        table, agreed: from `labels_table` and `agreement`.
        radii: DFT bins.
    Returns:
        Index (networks, what), one column per measure, text cells; accuracies are means over seeds.
    """
    rows, shares = {}, agreed.set_index(["variant", "measure"])["agreement"]
    columns, cells = ("test", *band_names(radii)), _after_training(table, "test")
    for (version, suffix), labels in product(_trained(table), KINDS):
        variant, name = f"{labels}{suffix}", f"{labels}, {version}"
        own = {(name, "accuracy"): {measure: f"{variant}.{measure}" for measure in columns}}
        rows |= contrast_rows(own, cells, without=RUN_MISSING, alone=mean_sd)
        same = {measure: decimals(shares.get((variant, measure), np.nan), 2) for measure in columns}
        rows[name, "same as image"] = {measure: text.replace("nan", "") for measure, text in same.items()}
    return text_table(rows, ["networks", "prediction"])


def over_accuracy(table: pd.DataFrame, radii: Sequence[int]) -> pd.DataFrame:
    """The accuracy on bands of training images over the training accuracy, at LEVELS (`at_accuracy`).

    Returns:
        One row per network, band and level: variant, seed, measure, train, value.
    """
    columns = ["variant", "seed", "measure", "train", "value"]
    parts = [pd.DataFrame(columns=columns)]
    for variant in dict.fromkeys(table["variant"]):
        for measure in band_names(radii):
            values = at_accuracy(table, variant, measure, LEVELS).rename_axis("train").reset_index()
            long = values.melt("train", var_name="seed", value_name="value").dropna()
            parts.append(long.assign(variant=variant, measure=measure)[columns])
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def epochs_rows(table: pd.DataFrame, radii: Sequence[int]) -> pd.DataFrame:
    """The rows of a `labels_table` that `epochs_figure` draws."""
    drawn = table["epoch"].notna() & (table["split"] == "train")
    return table[drawn & ((table["band"] == "x") | table["radius"].isin(radii))]


def epochs_figure(rows: pd.DataFrame, radii: Sequence[int]) -> Figure:
    """Accuracy on training images and their bands after each epoch, a panel per kind of labels and of network.

    Args:
        rows: from `epochs_rows`. Of networks that are not trained, there are no panels.
        radii: DFT bins, of 4, 8, 12, 16.
    Returns:
        A Figure; hollow squares are the published values at the end of training.
    """
    shown = [(version, suffix, labels) for version, suffix in _trained(rows) for labels in KINDS]
    cells = "train", *(f"L{radius}" for radius in radii)
    with drawn_in(CHART):
        titles = [f"{labels.capitalize()} labels,\n{version}" for version, _, labels in shown]
        figure, axes = panels(
            titles, sharex=False, beside=1.9, xlabel="Epoch", ylabel="Accuracy (share of training images)"
        )
        for ax, (_, suffix, labels) in zip(axes, shown, strict=True):
            own = rows[rows["variant"] == f"{labels}{suffix}"]
            accuracy_by_epoch(ax, own, {cell: LABELS_PUBLISHED[labels][cell] for cell in cells})
        legend(figure, epoch_handles(rows, ("x", "lfc")))
    return figure


def over_accuracy_figure(rows: pd.DataFrame, radii: Sequence[int]) -> Figure:
    """Accuracy on the bands of training images against the accuracy on the images, a panel per radius.

    Args:
        rows: from `over_accuracy`. Networks without BatchNorm have further panels, once they have rows.
        radii: DFT bins, of 4, 8, 12, 16.
    Returns:
        A Figure; lines are means over seeds, hollow squares the published values of the LFC at the end of training.
    """
    shown = [(version, suffix, radius) for version, suffix in _trained(rows) for radius in radii]
    with drawn_in(CHART):
        figure, axes = panels(
            [f"r = {radius}, {version}".replace("without", "no") for version, _, radius in shown],
            height=2.1,
            beside=1.4,
            xlabel="On training images",
            ylabel="Accuracy on their bands",
        )
        for ax, (_, suffix, radius) in zip(axes, shown, strict=True):
            for labels, colour in COLOURS.items():
                own = rows[rows["variant"] == f"{labels}{suffix}"]
                bands = {f"{band}{radius}": Look(colour, dashes=ls) for band, ls in (("L", "-"), ("H", "--"))}
                lines(ax, own, "train", "measure", bands)
                ends_at = LABELS_PUBLISHED[labels]["train"], LABELS_PUBLISHED[labels][f"L{radius}"]
                ax.plot(*ends_at, "s", mfc="white", mec=colour, ms=8, clip_on=False)
            ax.plot([0, 1], [0, 1], color="0.3", lw=1, ls=":")
            ax.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1))
        handles = [Look(colour).handle(f"{labels} labels", lw=3) for labels, colour in COLOURS.items()]
        handles += [Look("0.3", dashes=ls).handle(name) for name, ls in (("LFC", "-"), ("HFC", "--"))]
        legend(figure, [*handles, Look("0.3", "s", "", hollow=True).handle("paper, end")], columns=3)
    return figure


# ---- the chapter


class LabelsParameters(SeveralSeeds):
    """The parameters of `notebooks/labels.ipynb`."""

    radius: several(PaperRadius, 4) = Field(PAPER_RADII, title="radii to draw")


LABELS = Chapter(
    name="labels",
    question="Through which band are labels memorised?",
    topic="labels",
    paper="Fig. 3",
    blog="rethinking generalization",
    figures={"labels-epochs": "training", "labels-order": "training"},
    recipes=labels_recipes,
    parameters=LabelsParameters,
    titles={
        "natural": "BatchNorm, 5,000 images",
        "shuffled": "BatchNorm, shuffled labels",
        "natural_plain": "Vanilla, 5,000 images",
        "shuffled_plain": "Vanilla, shuffled labels",
    },
    required=("natural", "shuffled"),
    needs_weights=("shuffled",),
    evidence=labels_table,
    cells=_cells,
    measures=r"train|[LH]\d+(_at_90|_early|_peak|_end)?",
)
