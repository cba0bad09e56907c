"""The chapter on BatchNorm: why does it lead on the HFC? Its recipes, measurements, claims and figures.

`python -m hfclib.paper.batchnorm` measures the stored networks, and vanilla ones of the schedule as stated, also with
crop and flip, and writes one table per network to `data/batchnorm`, with a description of where it comes from. Networks
whose table is there already are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from hfclib.charts import CHANCE, CHART, drawn_in, intervals, legend, network_looks, panels
from hfclib.conditions import BN_STATS, PAPER_RADII
from hfclib.paper.bands import band_results, fig1_recipes
from hfclib.paper.batch_statistics import (
    BATCH_CONDITIONS,
    COUNTS,
    PAIR,
    TEST_BATCH,
    measure,
    measured_cells,
    published_counts,
    table,
)
from hfclib.paper.chapter import Chapter
from hfclib.paper.intervals import over_seeds
from hfclib.paper.misalignment import fig2_recipes
from hfclib.paper.parameters import PaperRadius, SeveralSeeds, several
from hfclib.paper.presets import (
    TITLES,
    Preset,
    adversarial_recipes,
    base_recipe,
    fig4_recipes,
    stated_recipes,
)
from hfclib.paper.stored_tables import publish_tables
from hfclib.paper.tables import (
    cell_names,
    cells_of_shares,
    contrast_rows,
    gather,
    in_words,
    mean_sd,
    mean_text,
    over_seeds_table,
    text_table,
)
from hfclib.runs.collect import Runs, published_runs
from hfclib.training.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AMPLIFIED = (2, 4)  # by how much the HFC at r = 8 is amplified in the training of `amplified_recipes`


def fig6_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """Networks trained on the LFC, without BatchNorm and with it: lfc4 to lfc16 of Table 1, batchnorm_lfc4 to
    batchnorm_lfc16.

    Source: paper, section 5.3 and Fig. 6; bands are rescaled as in `fig1`.
    """
    base = base_recipe(preset)
    plain = {name: recipe for name, recipe in fig1_recipes(preset).items() if recipe.data.train_band == "lfc"}
    normed = {
        f"batchnorm_{variant}": recipe.with_(name=f"{base.name}-batchnorm_{variant}", norm="batch")
        for variant, recipe in plain.items()
    }
    return plain | normed


def amplified_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """vanilla and batchnorm of Fig. 4, trained on images whose HFC at r = 8 is amplified two and four times: louder2,
    louder4, batchnorm_louder2, batchnorm_louder4.

    Source: ours, after the blog: if BatchNorm helps because it makes faint signals larger, an amplified HFC should do
    the same.
    """
    variants, base = fig4_recipes(preset), base_recipe(preset)
    amplified = {}
    for (variant, before), scale in product((("vanilla", ""), ("batchnorm", "batchnorm_")), AMPLIFIED):
        name, how = f"{before}louder{scale}", {"train_band": "sum", "train_radius": 8, "train_scale": float(scale)}
        amplified[name] = variants[variant].with_(name=f"{base.name}-{name}", **how)
    return amplified


def all_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """Fig. 4's networks, groupnorm, adversarial training with BatchNorm, fullwidth, and those above.

    Source: ours. GroupNorm (Wu and He 2018) normalises each image by itself, in training and at test time alike: where
    it acts as BatchNorm does, statistics of batches are not the cause.
    """
    base = base_recipe(preset)
    groupnorm = {"groupnorm": base.with_(name=f"{base.name}-groupnorm", norm="group")}
    others = adversarial_recipes(preset) | fig2_recipes(preset) | fig6_recipes(preset) | amplified_recipes(preset)
    return fig4_recipes(preset) | groupnorm | others


# ---- what the notebook shows


def cells_by_condition(measured: pd.DataFrame) -> pd.DataFrame:
    """The cells of bands by their condition, such as `vanilla.H4_max_running`, from a `table`."""
    rows = measured[(measured["part"] == "feeds") & (measured["band"] != "x")]
    measure = cell_names(rows) + "_" + rows["feed"] + "_" + rows["bn_stats"]
    return cells_of_shares(rows.assign(measure=measure, measured="", sample="test"))


LINES = {
    ("vanilla", "running"): "vanilla",
    ("vanilla", "matched"): "vanilla, test-batch statistics",
    ("batchnorm", "running"): "BatchNorm, running averages",
    ("batchnorm", "batch"): "BatchNorm, test-batch statistics",
}
_PAIR_LOOKS = network_looks(PAIR)


def pair_rows(measured: pd.DataFrame, radii: Sequence[int], parts: Sequence[str]) -> pd.DataFrame:
    """Rows of a `table` for `accuracy_figure`: vanilla's and BatchNorm's accuracies on the HFC at these radii.

    The part "feeds" has the feed on the axis; the others have the use of the test batch, under the max feed.
    """
    rows = measured.query("part in @parts and radius in @radii and variant in @PAIR and band != 'lfc'")
    panel = "r = " + rows["radius"].astype(str)
    if list(parts) == ["feeds"]:
        x, order = rows["feed"], ["max", "raw", "mean"]
    else:
        names = {"where input": "pixels only", "where first": "first stage", "where all": "all layers"}
        names |= {"batch size all": "batch of ", "mixed all": "half clean"}
        x = (rows["part"] + " " + rows["where"]).map(names)
        x = x.where(x != "batch of ", x + rows["batch_size"].astype(str))
        order = ["pixels only", "first stage", "all layers", "batch of 10", "batch of 1000", "half clean"]
    line = [LINES[key] for key in zip(rows["variant"], rows["bn_stats"], strict=True)]
    return rows.assign(panel=panel, x=pd.Categorical(x, order), line=line)


def accuracy_figure(rows: pd.DataFrame, *, lines: Sequence[tuple] = tuple(LINES)) -> Figure:
    """Means over seeds with 95 % intervals (Student's t) of rows from `pair_rows`."""
    looks = {
        LINES[variant, bn_stats]: replace(_PAIR_LOOKS[variant], hollow=bn_stats == "running")
        for variant, bn_stats in lines
    }
    means = over_seeds_table(rows, ["panel", "x", "line"])
    names = list(rows["panel"].unique())
    with drawn_in(CHART):
        height = 0.5 + 0.12 * len(looks) * len(rows["x"].cat.categories)
        figure, axes = panels(names, height=height, beside=1.6, xlabel="Accuracy")
        for ax, name in zip(axes, names, strict=True):
            intervals(ax, means[means["panel"] == name], "x", "line", looks)
            ax.axvline(CHANCE, color="0.3", lw=1, ls="--")
            ax.set(xlim=(0, 1))
        legend(figure, [look.handle(line) for line, look in looks.items()], columns=1)
    return figure


CONTROLS = {  # the feed, and the statistics of vanilla; BatchNorm always has those of the test batch
    "none": ("max", "running"),
    "mean colour alone": ("mean", "running"),
    TEST_BATCH: ("max", "matched"),
    "both": ("mean", "matched"),
}


def lead_over(plain: str, normed: str, lead: str = "BatchNorm's lead") -> dict[str, str]:
    """The contrasts of a row: the accuracies of a network without BatchNorm and of one with it, and the lead."""
    return {"vanilla": plain, "BatchNorm": normed, lead: f"{normed} - {plain}"}


def lead_table(measured: pd.DataFrame, radii: Sequence[int], bands: Sequence[str] = ("hfc",)) -> pd.DataFrame:
    """BatchNorm's lead over vanilla on a band as the authors measure it, and under each of CONTROLS, as text.

    Args:
        measured: a `table`.
        radii: in DFT bins.
        bands: "hfc", "lfc" or both. The mean colour is added to HFCs only.
    Returns:
        By band with its radius, and by control: mean accuracies over all seeds of each network, and the lead with its
        95 % interval (`claims.evaluate`) and its number of seeds.
    """
    rows = {
        (place, control): lead_over(f"vanilla.{place}_{feed}_{statistics}", f"batchnorm.{place}_{feed}_batch")
        for place in (f"{band[0].upper()}{radius}" for band, radius in product(bands, radii))
        for control, (feed, statistics) in CONTROLS.items()
    }
    texts = contrast_rows(rows, cells_by_condition(measured), alone=partial(mean_text, places=2), seeds=True)
    return text_table(texts, ["accuracy on", "control"])


def groupnorm_table(measured: pd.DataFrame, radii: Sequence[int]) -> pd.DataFrame:
    """GroupNorm less vanilla and BatchNorm less GroupNorm on the HFC, max feed, as independent samples, as text.

    Args:
        measured: a `table`; all of its seeds are used, whether or not another network has them too.
        radii: one row each.
    Returns:
        Welch's 95 % intervals over seeds alone, without test-batch statistics or with them for both.
    """
    contrasts = {
        "GroupNorm less vanilla": "groupnorm.H{0}_max_running - vanilla.H{0}_max_running",
        "the same, test-batch statistics for both": "groupnorm.H{0}_max_matched - vanilla.H{0}_max_matched",
        "BatchNorm less GroupNorm, test-batch statistics for both": (
            "batchnorm.H{0}_max_batch - groupnorm.H{0}_max_matched"
        ),
    }
    rows = {f"H{radius}": {name: text.format(radius) for name, text in contrasts.items()} for radius in radii}
    cells = cells_by_condition(measured)
    independent = cells.assign(draw=cells["variant"], image_sd=0.0)
    return text_table(contrast_rows(rows, independent), ["accuracy on"])


def test_batch_table(measured: pd.DataFrame, radii: Sequence[int]) -> pd.DataFrame:
    """Accuracy of every network without and with test-batch statistics, max feed, as text: mean ± sd over seeds.

    Without them BatchNorm takes its running averages; with them networks without BatchNorm are `matched`.
    """
    shown = "feed == 'max' and radius in @radii or band == 'x'"
    rows = measured.query(f"part == 'feeds' and variant in @TITLES and ({shown})")
    rows = rows.assign(cell=cell_names(rows), network=rows["variant"].map(TITLES))
    rows["test-batch statistics"] = np.where(rows["bn_stats"] == "running", "no", "yes")
    by = ["network", "test-batch statistics"]
    wide = rows.pivot_table("value", by, "cell", partial(mean_sd, places=2), sort=False)
    seeds = rows.groupby(by)["seed"].nunique().rename("seeds")
    columns = ["test", *(f"{band}{radius}" for band in "HL" for radius in radii)]
    order = sorted(wide.index, key=lambda place: (list(TITLES.values()).index(place[0]), place[1]))
    return wide[columns].replace("\u00a0", "", regex=True).join(seeds).loc[order]  # nine columns must fit on a page


def scaled_table(measured: pd.DataFrame, radii: Sequence[int]) -> pd.DataFrame:
    """What vanilla gains on the HFC where it is multiplied by k at test time, by feed and radius.

    Means over seeds with 95 % intervals, as text.
    """
    rows = measured.query("part == 'scaled' and variant == 'vanilla' and bn_stats == 'running' and band == 'hfc'")
    rows = rows[rows["radius"].isin(radii)].replace({"feed": {"raw": "by itself", "mean": "mean colour added"}})
    wide = rows.pivot_table(index=["feed", "radius", "seed"], columns="scale", values="value")
    gains = wide.drop(columns=1).sub(wide[1], axis=0).rename(columns="k = {}".format)
    return gains.groupby(["feed", "radius"]).agg(lambda values: in_words(over_seeds(values))).rename_axis(columns=None)


def amplified_table(measured: pd.DataFrame) -> pd.DataFrame:
    """Accuracy on the HFC at r = 8, by control and by how much it was amplified in training, as text.

    Means over all seeds of each network, and BatchNorm's lead with its 95 % interval.
    """
    ways = {
        "max feed, test-batch statistics for both": ("max_matched", "max_batch"),
        "max feed": ("max_running", "max_running"),
        "mean colour added": ("mean_running", "mean_running"),
    }
    rows = {}
    for (way, conditions), scale in product(ways.items(), (1, *AMPLIFIED)):
        names = PAIR if scale == 1 else (f"louder{scale}", f"batchnorm_louder{scale}")
        rows[way, scale] = lead_over(*(f"{name}.H8_{how}" for name, how in zip(names, conditions, strict=True)))
    texts = contrast_rows(rows, cells_by_condition(measured), alone=partial(mean_text, places=2), seeds=True)
    return text_table(texts, ["measured", "HFC in training, times k"])


def fig6_table(runs: Runs) -> pd.DataFrame:
    """What BatchNorm gains in networks trained on the LFC.

    Args:
        runs: by variant, of which those of `fig6_recipes` are taken; a radius without both networks is left out.
    Returns:
        One row per kind of images, BatchNorm's statistics and training radius: whole test images; their LFC, on the
        scale of the training images; and the LFC of training images after a quarter of the epochs, which shows how fast
        a network learns. Accuracies are means over seeds; the gain, and after the four radii the gain at r = 16 less
        that at r = 4, have their 95 % interval; as text.
    Source: paper, section 5.3 and Fig. 6.
    """
    names = [f"{before}lfc{radius}" for before in ("", "batchnorm_") for radius in PAPER_RADII]
    runs = Runs({name: runs[name] for name in names if name in runs})
    if not runs:
        return pd.DataFrame()
    final, curves = (gather(runs, which) for which in ("final", "curves"))
    early = curves[curves["epoch"] == max(1, curves["epoch"].max() // 4)]
    measured = {  # by row, where it is and what `band_results` says that it was tested on
        "whole images": (final, "original test images"),
        "the LFC": (final, "same band of test images"),
        "the LFC of training images, early": (early, "training images"),
    }
    gain = "BatchNorm's gain"
    rows = {r: lead_over(f"lfc{r}.accuracy", f"batchnorm_lfc{r}.accuracy", gain) for r in PAPER_RADII}
    rows["16 less 4"] = {"vanilla": "", "BatchNorm": "", gain: f"{rows[16][gain]} - ({rows[4][gain]})"}
    texts = {}
    for (name, (accuracies, tested)), statistics in product(measured.items(), BN_STATS):
        # `gather` has spelled out that a network without BatchNorm is the same under both.
        results = band_results(accuracies[accuracies["bn_stats"] == statistics].assign(bn_stats="running"))
        results = results[results["tested on"] == tested]
        cells = cells_of_shares(results.assign(measure="accuracy", measured="", sample=tested))
        own = contrast_rows(rows, cells, seeds=True)
        texts |= {(name, statistics, radius): row for radius, row in own.items()}
    return text_table(texts, ["measured on", "BatchNorm's statistics", "trained on the LFC at r"])


class BatchNormParameters(SeveralSeeds):
    """The parameters of `notebooks/batchnorm.ipynb`."""

    radius: several(PaperRadius, 4) = Field(PAPER_RADII, title="radii to draw")


BATCHNORM = Chapter(
    name="batchnorm",
    question="Why does BatchNorm lead on the HFC?",
    topic="BatchNorm",
    paper="section 5.3, Fig. 6",
    blog="Fig. 4",
    builds_on=("fig4",),
    figures={
        "batchnorm-control": "afterwards",
        "batchnorm-where": "afterwards",
        "batchnorm-treatments": "afterwards",
    },
    recipes=all_recipes,
    parameters=BatchNormParameters,
    required=PAIR,
    needs_weights=("vanilla",),
    evidence=table,
    cells=measured_cells,
    measures=r"test|[LH]\d+",
    conditions=tuple(BATCH_CONDITIONS),
)

if __name__ == "__main__":
    networks = published_runs(all_recipes()).items()
    asked = {variant: [run for run in ones if published_counts(run, variant)] for variant, ones in networks}
    publish_tables("batchnorm", asked, lambda run, variant: measure(run, variant, published_counts(run, variant)))
    # Of other names than "vanilla" the max feed only, as `width` needs it.
    stated = {"vanilla": all_recipes("narrow")["vanilla"]}
    for preset in ("narrow", "paper"):
        stated |= {name: recipe for name, recipe in stated_recipes(preset).items() if recipe.model.norm == "none"}
    publish_tables("batchnorm", published_runs(stated), partial(measure, counts={"feeds": COUNTS["feeds"]}))
