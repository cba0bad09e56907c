"""The chapter on all published networks: LFC accuracy next to test accuracy, and does HFC reading predict fragility?

A network is fragile to a shift, such as JPEG compression, as far as it loses accuracy under it. The chapter measures
every stored network under ten shifts and under attack, and compares this with how much of the HFC the network reads.

`python -m hfclib.paper.networks` measures the stored networks and writes one table per network to `data/networks`, with
a description of where it comes from. Networks whose table is there already are skipped.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from PIL import Image, ImageEnhance
from pydantic import Field
from torch import Tensor

from hfclib.attacks import clean_correct, pgd, robust_correct
from hfclib.charts import CHART, NETWORK_COLOURS, VIBRANT, Look, drawn_in, intervals, legend, panels
from hfclib.conditions import PAPER_RADII
from hfclib.data.cifar import embedded, to_float
from hfclib.devices import best_device
from hfclib.frequency import split
from hfclib.metrics import accuracy
from hfclib.paper.all_networks import SET_UPS, USABLE, kind_of, network_name, networks_recipes
from hfclib.paper.chapter import Chapter
from hfclib.paper.intervals import Estimate, MissingRunError, rank_correlation
from hfclib.paper.measurements import each_run, measurements
from hfclib.paper.names import check_choice
from hfclib.paper.parameters import PaperRadius, SeveralSeeds, choice
from hfclib.paper.registry import RECIPES
from hfclib.paper.show import listed
from hfclib.paper.stored_tables import publish_tables, stored_table
from hfclib.paper.tables import (
    CONDITION_TITLES,
    CONDITIONS,
    Measured,
    decimals,
    estimate_cell,
    gather,
    in_words,
    select,
    text_table,
)
from hfclib.runs.collect import Runs, published_runs
from hfclib.runs.store import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORK_IMAGES = {"shifts": 2_000, "attacks": 500}  # the first test images, on which a network is measured
RADIUS = 8  # of the claims, in DFT bins


# ---- shifts

Shift = Literal[
    "jpeg90", "jpeg70", "jpeg50", "jpeg30", "resize24", "resize16", "noise4", "noise8", "noise16", "sharpen2"
]
_STRENGTHS = {"jpeg": (90, 70, 50, 30), "resize": (24, 16), "noise": (4, 8, 16), "sharpen": (2,)}
_SHIFTS = {f"{kind}{strength}": (kind, strength) for kind, ones in _STRENGTHS.items() for strength in ones}
SHIFTS: tuple[Shift, ...] = tuple(_SHIFTS)
_HFC_ONLY = [f"{shift} hfc" for shift in SHIFTS]
SHIFT_KINDS = {"jpeg": "JPEG", "resize": "resized", "noise": "noise", "sharpen": "sharper"}


def shifted(images: Tensor, shift: Shift) -> Tensor:
    """Images under a shift, the same at each call.

    Args:
        images: (N, 3, H, W) uint8.
        shift: "jpegQ" saves them at quality Q with Pillow's defaults, which halve the resolution of the colours.
            "resizeS" resizes them to S x S pixels and back (bicubic). "noiseS" adds normal noise of standard deviation
            S (of 255) to each value, rounds and clips. "sharpen2" doubles the difference to Pillow's smoothed image.
    Returns:
        (N, 3, H, W) uint8. An image does not depend on those behind it.
    Raises:
        ValueError: images are not uint8, or another shift.
    """
    check_choice("shift", shift, SHIFTS)
    if images.dtype != torch.uint8:
        raise ValueError(f"expected images, uint8 (N, 3, H, W), got {images.dtype}")
    kind, strength = _SHIFTS[shift]
    if kind == "noise":
        # NumPy's stream is the same on every processor.
        drawn = np.random.default_rng(0).standard_normal(tuple(images.shape), dtype=np.float32)
        return (images + strength * torch.from_numpy(drawn)).round().clamp(0, 255).to(torch.uint8)
    pictures = (_changed(Image.fromarray(one), kind, strength) for one in images.permute(0, 2, 3, 1).numpy())
    return torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2)


def _changed(picture: Image.Image, kind: str, strength: int) -> Image.Image:
    if kind == "jpeg":
        picture.save(buffer := io.BytesIO(), "JPEG", quality=strength)
        return Image.open(buffer)
    if kind == "resize":
        small = picture.resize((strength, strength), Image.Resampling.BICUBIC)
        return small.resize(picture.size, Image.Resampling.BICUBIC)
    return ImageEnhance.Sharpness(picture).enhance(strength)


@cache
def _shifted_test(shift: Shift, count: int) -> Tensor:
    return shifted(embedded("test")[0][:count], shift)


# ---- measuring

NETWORK_ATTACKS = {"pgd0": 0.0, "pgd2": 2 / 255, "pgd8": 8 / 255}  # eps


def shift_inputs(count: int) -> Iterator[tuple[str, Tensor]]:
    """What a network is fed of the first `count` test images: (measure, (count, 3, 32, 32) float).

    "none" is the images as they are. A shift's name is the images under it; with " hfc" only the HFC of its change at
    RADIUS is added to the image, so that the image's LFC is left alone exactly; pixels may then leave [0, 1].
    """
    images = to_float(embedded("test")[0][:count])
    yield "none", images
    for shift in SHIFTS:
        changed = to_float(_shifted_test(shift, count))
        yield shift, changed
        yield f"{shift} hfc", images + split(changed - images, RADIUS)[1]


def measure_network(run: Run, counts: Mapping[str, int] = NETWORK_IMAGES) -> pd.DataFrame:
    """The accuracy of a network under the shifts and under attack.

    Args:
        run: its BatchNorm uses running averages.
        counts: how many test images, as NETWORK_IMAGES, but no more than the run's final_images.
    Returns:
        One row per measure: measure, images (their number), accuracy [0, 1]. Measures are those of `shift_inputs`, and
        NETWORK_ATTACKS: the share of images correct before and after PGD in 20 steps of eps / 4 from a random start.
    """
    count, attacked = (min(counts[part], run.recipe.final_images) for part in ("shifts", "attacks"))
    model, labels = run.model().to(best_device()), embedded("test")[1]
    rows = [(name, count, accuracy(model, fed, labels[:count], amp=True)) for name, fed in shift_inputs(count)]
    images, classes = (part[:attacked].to(best_device()) for part in (to_float(embedded("test")[0][:attacked]), labels))
    clean = clean_correct(model, images, classes)
    for name, eps in NETWORK_ATTACKS.items():
        correct = clean.clone()
        if eps:  # images are numbered among those that are correct, as they were for the published tables
            attack = partial(pgd, eps=eps, alpha=eps / 4, steps=20, seed=0)
            correct[clean] = robust_correct(model, images[clean], classes[clean], attack, amp=True)
        rows.append((name, attacked, correct.double().mean().item()))
    return pd.DataFrame(rows, columns=["measure", "images", "accuracy"])


stored_measures = partial(stored_table, "networks")


def networks_table(runs: Runs, *, compute: bool = False) -> pd.DataFrame:
    """The chapter's table: accuracies on test images, from the runs themselves and from what was measured beside them.

    Args:
        runs: by variant.
        compute: measure what is not stored; it takes a minute per network and is not kept.
    Returns:
        One row per network and measure: variant, seed, kind (`kind_of`), measure, value [0, 1]. Measures are "test",
        "L4" to "H16" (bands of all images with the mean colour, running averages), the same followed by " authors"
        (measured as the authors did), and those of `measure_network`.
    """
    final = gather(runs, "final")
    own, theirs = (select(final, PAPER_RADII, *CONDITIONS[measured]) for measured in ("controlled", "authors"))
    parts = [own[own["split"] != "train"].assign(measure=own["cell"])]
    parts.append(theirs[theirs["band"] != "x"].assign(measure=theirs["cell"] + " authors"))
    for variant, run in each_run(runs):
        beside = stored_measures(run)
        if beside is None and compute and run.has_weights:
            beside = measure_network(run)
        if beside is not None:
            parts.append(measurements(beside, variant, run))
    kinds = {variant: kind_of(run) for variant, run in each_run(runs)}
    table = pd.concat(parts, ignore_index=True)
    return table.assign(kind=table["variant"].map(kinds))[["variant", "seed", "kind", "measure", "value"]]


# ---- does HFC reading predict fragility?


def relative_drop(table: pd.DataFrame) -> pd.DataFrame:
    """How much of its accuracy each recipe loses, and what it reads.

    Args:
        table: a `networks_table`.
    Returns:
        One row per measured recipe (variant, kind) with a test accuracy of at least USABLE. Columns "test", "L4" to
        "H16" and "L4 authors" to "H16 authors" are accuracies. Those of shifts and attacks are shares lost, 1 - a / b,
        where a is the accuracy under the shift and b that on the same images without it, computed for each network;
        "mean" is over SHIFTS, "mean hfc" over the HFC of their changes. All are means over the same seeds.
    """
    wide = table.pivot_table("value", ["variant", "kind", "seed"], "measure", sort=False)
    wide = wide.reindex(columns=[*wide.columns.union(["none", *SHIFTS, *_HFC_ONLY, *NETWORK_ATTACKS], sort=False)])
    for names, clean in (([*SHIFTS, *_HFC_ONLY], "none"), (list(NETWORK_ATTACKS), "pgd0")):
        wide[names] = 1 - wide[names].div(wide[clean], axis=0)
    wide["mean"] = wide[list(SHIFTS)].mean(axis=1, skipna=False)
    wide["mean hfc"] = wide[_HFC_ONLY].mean(axis=1, skipna=False)
    measured = wide.dropna(subset=["mean", "pgd2"])  # a run may be stored without what was measured beside it
    means = measured.groupby(["variant", "kind"], sort=False).mean()
    return means[means["test"] >= USABLE]


def association(
    rows: pd.DataFrame,
    measure: str,
    radius: int = RADIUS,
    *,
    equal: bool = False,
    band: Literal["H", "L"] = "H",
    measured: Measured = "controlled",
) -> Estimate:
    """The `rank_correlation` of the accuracy on a band with the share of accuracy lost, over recipes.

    Args:
        rows: of `relative_drop`.
        measure: a column of them.
        radius, band: DFT bins; "H" for the HFC or "L" for the LFC.
        equal: with the test accuracy as control.
        measured: how the accuracy on the band is measured.
    """
    column = f"{band}{radius}" + (" authors" if measured == "authors" else "")
    return rank_correlation(rows[column], rows[measure], rows["test"] if equal else None)


def _claimed(table: pd.DataFrame, *, measure: str, equal: bool = False) -> Estimate:
    return association(relative_drop(table), measure, equal=equal)


# Their claims' rules were written before any network was measured under a shift. Robust accuracies were known of three
# networks on 100 images, and those of the chapter on defenses.
_FUNCTIONS = {
    "shift": partial(_claimed, measure="mean hfc"),
    "shift_equal": partial(_claimed, measure="mean hfc", equal=True),
    "attack": partial(_claimed, measure="pgd2"),
}


# ---- what the notebook shows

_LOOKS = {  # colour, marker and filling by `kind_of`; networks of a figure keep its colours
    "no normalisation": (NETWORK_COLOURS["vanilla"], "o", "full"),
    "GroupNorm": (NETWORK_COLOURS["groupnorm"], "o", "full"),
    "BatchNorm": (NETWORK_COLOURS["batchnorm"], "s", "full"),
    "other, no BatchNorm": ("0.5", "X", "full"),
    "adversarial training": (NETWORK_COLOURS["adversarial"], "v", "full"),
    "trained on the LFC": ("0.3", "D", "none"),
    "trained on the HFC": ("0.3", "D", "full"),
    "trained on an amplified HFC": ("0.3", "P", "full"),
}
_PARTS = {"whole": "shifts as they are", "hfc": "their HFC alone"}


def _at_its_radius(words: str, radius: int) -> str:
    """Appends "(r = 8)" to words about the HFC of the shifts where the page shows another radius."""
    return words if radius == RADIUS else f"{words} (r = {RADIUS})"


def _short(measure: str, radius: int) -> str:
    return _at_its_radius("HFC of the shifts", radius) if measure == "mean hfc" else "attack of 2/255"


def shift_name(measure: str) -> str:
    """What a figure calls a shift, or a mean of shifts, or an attack, such as "JPEG 50" or "noise 8/255"."""
    if measure not in _SHIFTS:
        return {"mean": "mean of ten shifts", "pgd2": "PGD, eps 2/255", "pgd8": "PGD, eps 8/255"}[measure]
    kind, strength = _SHIFTS[measure]
    return {
        "jpeg": f"JPEG {strength}",
        "resize": f"{strength} x {strength} and back",
        "noise": f"noise {strength}/255",
        "sharpen": "sharpened",
    }[kind]


def change_table(count: int) -> pd.DataFrame:
    """Where the changes lie that the shifts make to the first `count` test images: one row per shift, as text.

    Columns: the size of the change, root mean square in 255ths; the share of its energy beyond each of the paper's
    radii; and the size of its LFC and HFC at RADIUS as a share of the contrast of the images' own LFC and HFC.
    """
    images = to_float(embedded("test")[0][:count])
    own = split(images - images.mean(dim=(2, 3), keepdim=True), RADIUS)
    rows = {}
    for shift in SHIFTS:
        change = to_float(_shifted_test(shift, count)) - images
        energy = change.square().mean()
        row = {"size of the change": f"{255 * energy.sqrt():.1f}/255"}
        for radius in PAPER_RADII:
            row[f"beyond r = {radius}"] = decimals((split(change, radius)[1].square().mean() / energy).item(), 2)
        for name, part, band in zip(("LFC", "HFC"), split(change, RADIUS), own, strict=True):
            row[f"{name}: change / contrast"] = decimals((part.square().mean() / band.square().mean()).sqrt().item(), 2)
        rows[shift_name(shift)] = row
    return text_table(rows, ["shift"])


def report_table(table: pd.DataFrame, radius: int) -> pd.DataFrame:
    """The table that the paper asks for: one row per recipe, the most accurate first, as text.

    Columns: number of seeds, accuracy on test images, on their LFC and on their HFC at a radius (with the mean colour),
    robust accuracy (PGD), and accuracy under the shifts, mean of the strengths of each kind. Means over seeds.
    """
    means = table.pivot_table("value", "variant", "measure", sort=False)
    means = means.reindex(columns=["test", f"L{radius}", f"H{radius}", *SHIFTS, *NETWORK_ATTACKS])
    means = means.rename(columns={"pgd2": "PGD 2/255", "pgd8": "PGD 8/255"})
    for kind, name in SHIFT_KINDS.items():
        means[name] = means[[f"{kind}{strength}" for strength in _STRENGTHS[kind]]].mean(axis=1, skipna=False)
    means = means.sort_values("test", ascending=False, kind="stable")[
        ["test", f"L{radius}", f"H{radius}", "PGD 2/255", "PGD 8/255", *SHIFT_KINDS.values()]
    ]
    text = means.map(lambda value: "\u2013" if np.isnan(value) else decimals(value, 2))
    text.insert(0, "seeds", table.groupby("variant")["seed"].nunique())
    return text.rename(index=network_name).rename_axis("network").rename_axis(columns=None)


def fragility_figure(table: pd.DataFrame, radius: int, shift: Shift) -> Figure:
    """The share of accuracy lost, under a shift and under attack, against HFC accuracy: a point per recipe."""
    rows = relative_drop(table)
    alone = _at_its_radius(f"{shift_name(shift)}, HFC alone", radius)
    measures = {shift: shift_name(shift), f"{shift} hfc": alone, "pgd2": shift_name("pgd2")}
    with drawn_in(CHART):
        figure, axes = panels(
            list(measures.values()),
            sharey=False,
            height=2.8,
            beside=2,
            xlabel=f"Accuracy on the HFC, r = {radius}",
            ylabel="Share of accuracy lost",
        )
        axes[1].sharey(axes[0])
        for ax, measure in zip(axes, measures, strict=True):
            for kind, (colour, marker, filling) in _LOOKS.items():
                own = rows[rows.index.get_level_values("kind") == kind]
                if len(own):
                    look = {"color": colour, "marker": marker, "fillstyle": filling, "ls": "", "ms": 7}
                    ax.plot(own[f"H{radius}"], own[measure], **look, label=kind)
            ax.set(xlim=(0, None))
            ax.axhline(0, color="0.3", lw=1, ls=":")
        if len(rows):
            legend(figure, ax.get_legend_handles_labels()[0])
    return figure


def association_rows(table: pd.DataFrame, radius: int) -> pd.DataFrame:
    """The `association` with every shift, their mean, and attack: one row per measure, part and control.

    Columns: measure, part ("whole" or "hfc"), control ("none" or "test accuracy"), mean, low, high, recipes. None where
    `rank_correlation` has none, as with fewer than three recipes.
    """
    measured, rows = relative_drop(table), []
    for measure, part, control in product((*SHIFTS, "mean", "pgd2"), _PARTS, ("none", "test accuracy")):
        if (measure, part) != ("pgd2", "hfc"):
            column = f"{measure} hfc" if part == "hfc" else measure
            with suppress(MissingRunError):
                estimate = association(measured, column, radius, equal=control != "none")
                rows.append((measure, part, control, estimate.mean, estimate.low, estimate.high, estimate.seeds))
    return pd.DataFrame(rows, columns=["measure", "part", "control", "mean", "low", "high", "recipes"])


def association_figure(rows: pd.DataFrame, radius: int = RADIUS) -> Figure:
    """The correlations of `association_rows` at a radius with their 95 % intervals, one panel per part."""
    names = list(map(shift_name, dict.fromkeys(rows["measure"])))
    rows = rows.assign(place=pd.Categorical(rows["measure"].map(shift_name), names))
    rows = rows.assign(low=rows["low"].clip(-1), high=rows["high"].clip(upper=1))
    looks = {"none": Look("0.1", "o", ""), "test accuracy": Look(VIBRANT["orange"], "D", "")}
    with drawn_in(CHART):
        titles = _PARTS | {"hfc": _at_its_radius(_PARTS["hfc"], radius)}
        figure, axes = panels(list(titles.values()), height=4.4, xlabel="Correlation")
        for ax, part in zip(axes, titles, strict=True):
            intervals(ax, rows[rows["part"] == part], "place", "control", looks, dodge=0.3)
            ax.axvline(0, color="0.3", lw=1, ls=":")
            ax.set(xlim=(-1, 1))
        words = {"none": "Spearman", "test accuracy": "at equal test accuracy"}
        legend(figure, [look.handle(words[control]) for control, look in looks.items()])
    return figure


def subset_table(table: pd.DataFrame, radius: int) -> pd.DataFrame:
    """The `association` among fewer recipes: without those trained against attacks, on one band, or both; then without
    those trained on an amplified HFC, and those of the chapter on training choices, too; and last among all, with the
    accuracy on the HFC measured as the authors did; as text.

    Columns: number of recipes; for the mean over the HFC of the shifts and for the attack of 2/255, Spearman's
    correlation and that at equal test accuracy, with their intervals.
    """
    adversarial = ["adversarial training"]
    bands, amplified = ["trained on the LFC", "trained on the HFC"], ["trained on an amplified HFC"]
    choices = [variant for variant in RECIPES["training"]("laptop") if variant != "vanilla"]
    choices += [f"{preset}_{variant}" for preset in SET_UPS for variant in choices]
    subsets = {"all": [], "no adversarial training": adversarial, "not trained on one band": bands}
    subsets["neither"] = adversarial + bands
    subsets["nor trained on an amplified HFC"] = adversarial + bands + amplified
    subsets["nor in the chapter on training choices"] = adversarial + bands + amplified + choices
    theirs = f"all, HFC accuracy {CONDITION_TITLES['authors']}"
    subsets[theirs] = []
    rows = {}
    for name, left_out in subsets.items():
        some = relative_drop(table[~(table["kind"].isin(left_out) | table["variant"].isin(left_out))])
        rows[name] = {"number": str(len(some))}
        measured: Measured = "authors" if name == theirs else "controlled"
        for measure, equal in product(("mean hfc", "pgd2"), (False, True)):
            column = f"{_short(measure, radius)}{', equal test accuracy' * equal}"
            options = {"measure": measure, "radius": radius, "equal": equal, "measured": measured}
            rows[name][column] = estimate_cell(association, some, "not measured", **options)
    return text_table(rows, ["recipes"])


def networks_answer(table: pd.DataFrame, radius: int) -> Markdown:
    """The correlations on which the answer rests, and what three networks read and lose, as far as they are there."""
    rows = relative_drop(table).droplevel("kind")
    lines = []
    for band, measure in product("HL", ("mean hfc", "pgd2")):
        with suppress(MissingRunError):
            estimates = [association(rows, measure, radius, equal=equal, band=band) for equal in (False, True)]
            plain, equal = (in_words(one) for one in estimates)
            lost_to = f"{band}FC accuracy, and the share lost to the {_short(measure, radius)}"
            lines.append(f"- {lost_to}: {plain}; {equal} at equal test accuracy.")
    if not lines:
        lines.append("- Too few recipes are measured for a correlation.")
    for variant in ("batchnorm", "lfc4", "adversarial"):
        if variant in rows.index:
            reads, shifts, attack = (decimals(rows.loc[variant, one], 2) for one in (f"H{radius}", "mean hfc", "pgd2"))
            to = _short("mean hfc", radius)
            text = f"HFC accuracy {reads}, loses {shifts} to the {to} and {attack} to the attack"
            lines.append(f"- {network_name(variant)}: {text}.")
    head = f"Rank correlations at r = {radius} over {len(rows)} recipes [95 % interval], and what three of them lose:"
    return listed(head, lines)


# ---- the chapter


class NetworksParameters(SeveralSeeds):
    """The parameters of `notebooks/networks.ipynb`."""

    radius: PaperRadius = Field(RADIUS, title="at which HFC and LFC accuracy are compared")
    shift: choice(Shift, SHIFTS) = Field("jpeg50", title="the shift that is drawn and computed by hand")


NETWORKS = Chapter(
    name="networks",
    question="Is a network that reads the HFC fragile?",
    topic="all networks",
    paper="conclusion",
    blog="conclusion",
    builds_on=("fig4",),
    figures={"networks-fragility": "afterwards", "networks-association": "afterwards"},
    recipes=networks_recipes,
    parameters=NetworksParameters,
    required=("vanilla",),
    needs_weights=("vanilla",),
    evidence=networks_table,
    functions=_FUNCTIONS,
)

if __name__ == "__main__":
    publish_tables("networks", published_runs(networks_recipes()), lambda run, _: measure_network(run))
