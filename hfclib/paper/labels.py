"""Natural and shuffled labels (the paper's Fig. 3): through which band is a training image learnt, and when?"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from hfclib.evaluation import PAPER_RADII
from hfclib.paper.chapter import Chapter
from hfclib.paper.intervals import Estimate, MissingRunError, interval
from hfclib.paper.parameters import SeveralSeeds, several
from hfclib.paper.presets import Preset, base_recipe
from hfclib.paper.tables import decimals
from hfclib.paper.verdicts import MARGIN, Claim
from hfclib.runs.collect import Runs
from hfclib.training.recipe import Recipe


def labels_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """Networks trained on natural and on shuffled labels, with BatchNorm and without: natural, shuffled, natural_plain,
    shuffled_plain. The bands of their training images are measured too.

    "laptop" trains on the 5,000 embedded images without augmentation, where a network with BatchNorm learns shuffled
    labels in fourteen epochs. Without it natural labels are learnt from the first epoch on, but on shuffled ones the
    loss stays at ln 10: in trials with seed 0 for all of 1,500 steps, and with a learning rate that rose over the first
    500 for 3,600 (46 epochs), after which it began to fall. The rise shortened nothing, and there is none here; the
    paper's network took about twenty epochs of 50,000 images to begin. Shuffled labels therefore have three times the
    epochs, as in the paper; whether 120 are enough was not tried. Other presets keep their own images and schedule.

    Source: paper, section 4.2 and Fig. 3.
    """
    base = replace(base_recipe(preset), train_bands=True, augment=False)
    by_norm = {"": {"norm": "batch"}, "_plain": {}}
    longer = {"": 1, "_plain": 1} if preset == "smoke" else {"": 3, "_plain": 3}
    if preset == "laptop":
        base = replace(base, schedule="constant", epochs=20, batch_size=64, train_images=5_000, eval_images=500)
        by_norm["_plain"] = {"epochs": 40}
        longer[""] = 1
    chosen = {}
    for suffix, change in by_norm.items():
        natural = replace(base, name=f"{base.name}-natural{suffix}", **change)
        epochs = longer[suffix] * natural.epochs
        shuffled = replace(natural, name=f"{base.name}-shuffled{suffix}", labels="shuffled", epochs=epochs)
        chosen |= {f"natural{suffix}": natural, f"shuffled{suffix}": shuffled}
    return chosen


# ---- tables

KINDS = ("natural", "shuffled")  # of labels
FIGURE = "read off the paper's Fig. 3, to about .03"
PUBLISHED = {  # accuracy on training images and their LFC at the end of training
    "natural": {"train": 0.98, "L4": 0.27, "L8": 0.65, "L12": 0.91, "L16": 0.97},
    "shuffled": {"train": 0.97, "L4": 0.14, "L8": 0.53, "L12": 0.90, "L16": 0.97},
}
NATURAL_L4 = {"start": 0.31, "peak": 0.39}  # after the first epoch, and after the second and third
_MEASURED = Annotated[int, Field(ge=4, le=16, multiple_of=4, description="one of 4, 8, 12, 16")]


def table(runs: Runs) -> pd.DataFrame:
    """The chapter's table: accuracies on whole images and on their bands, fed raw, with running statistics.

    Args:
        runs: by variant; none is allowed.
    Returns:
        One row per measurement: variant, seed, part ("epoch": after each, on 500 images of each set; "end": after
        training, on all 5,000 training images and 10,000 test images), epoch, split, band, radius, accuracy, and
        measure: "train", "test", or band and radius such as "L4". Training images have the labels of the training,
        test images their own.
    """
    parts = []
    for variant, run in ((variant, run) for variant, ones in runs.items() for run in ones):
        end = run.final.assign(part="end", epoch=run.recipe.epochs)
        rows = pd.concat([run.curves.assign(part="epoch"), end], ignore_index=True)
        parts.append(
            rows[(rows["feed"] == "raw") & (rows["bn_stats"] == "running")].assign(variant=variant, seed=run.seed)
        )
    columns = ["variant", "seed", "part", "epoch", "split", "band", "radius", "images", "accuracy"]
    found = pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
    band = found["band"].map({"lfc": "L", "hfc": "H"}) + found["radius"].astype(str)
    return found.assign(measure=band.where(found["band"] != "x", found["split"]))


def by_epoch(found: pd.DataFrame, variant: str, measure: str, split: str = "train") -> pd.DataFrame:
    """Accuracies of a network after each epoch, from a `table`: one row per epoch, one column per seed."""
    rows = found.query("part == 'epoch' and variant == @variant and measure == @measure and split == @split")
    return rows.pivot(index="epoch", columns="seed", values="accuracy").astype(float)


def ends(found: pd.DataFrame, variant: str, measure: str, split: str = "train") -> pd.Series:
    """Accuracies of a network after training, from a `table`, by seed."""
    rows = found.query("part == 'end' and variant == @variant and measure == @measure and split == @split")
    return rows.set_index("seed")["accuracy"].astype(float)


def at_accuracy(found: pd.DataFrame, variant: str, measure: str, level: float) -> pd.Series:
    """The accuracy on a band of training images when the accuracy on the images themselves is `level`, by seed.

    The curves are interpolated linearly between the first epoch whose training accuracy is at least `level` and the
    epoch before it. A seed has no value if it never gets there, or is there after its first epoch.
    """
    whole, band = by_epoch(found, variant, "train"), by_epoch(found, variant, measure)
    values = {}
    for seed in whole:
        reached = (whole[seed] >= level).to_numpy()
        if (after := int(reached.argmax())) > 0:  # 0 also if it is never reached
            x, y = (curve[seed].iloc[after - 1 : after + 1] for curve in (whole, band))
            values[seed] = float(np.interp(level, x, y))
    return pd.Series(values, dtype=float)


# ---- claims: written before any network of this chapter was trained

CHANCE = 0.1
LEAST_SEEDS = 3  # with fewer, no claim has an interval, and its verdict is "inconclusive"
EARLY = 1 / 15  # the paper's shuffled labels stay at chance for about 20 of 300 epochs
VERSIONS = {
    "batchnorm": ("with BatchNorm", ""),
    "plain": ("without BatchNorm", "_plain"),
}  # text and suffix of variants


def _estimate(values: pd.Series) -> Estimate:
    values = values.dropna()
    if values.empty:
        raise MissingRunError("no seed has all the runs of the claim")
    mean, low, high = interval(values)
    return Estimate(mean, *((low, high) if len(values) >= LEAST_SEEDS else (-np.inf, np.inf)), seeds=len(values))


def _at_end(found: pd.DataFrame, *, measure: str, suffix: str) -> Estimate:
    """Natural minus shuffled after training, on all training images."""
    return _estimate(ends(found, f"natural{suffix}", measure) - ends(found, f"shuffled{suffix}", measure))


def _at_equal_accuracy(found: pd.DataFrame, *, measure: str, level: float, suffix: str) -> Estimate:
    """Natural minus shuffled where both have the training accuracy `level`."""
    natural, shuffled = (at_accuracy(found, f"{labels}{suffix}", measure, level) for labels in KINDS)
    return _estimate(natural - shuffled)


def _early(found: pd.DataFrame, *, suffix: str) -> Estimate:
    """Highest accuracy on the LFC at r = 4, less chance, of shuffled labels in the first share EARLY of the epochs."""
    curves = by_epoch(found, f"shuffled{suffix}", "L4")
    return _estimate(curves.head(max(1, round(EARLY * len(curves)))).max() - CHANCE)


def _start(found: pd.DataFrame, *, suffix: str) -> Estimate:
    """Natural minus shuffled on the LFC at r = 4 after the first epoch."""
    natural, shuffled = (by_epoch(found, f"{labels}{suffix}", "L4").head(1).max() for labels in KINDS)
    return _estimate(natural - shuffled)


def _fall(found: pd.DataFrame, *, suffix: str) -> Estimate:
    """How far the accuracy of natural labels on the LFC at r = 4 falls from its peak to the mean of the last 3 epochs.

    The highest point of a noisy curve lies above its end by chance alone. So the epoch of the peak is that of the mean
    of the other seeds.
    """
    curves = by_epoch(found, f"natural{suffix}", "L4")
    peaks = {seed: others.idxmax() for seed in curves if len(others := curves.drop(columns=seed).mean(axis=1).dropna())}
    return _estimate(pd.Series({seed: curves.at[at, seed] - curves[seed].tail(3).mean() for seed, at in peaks.items()}))


def _furthest(found: pd.DataFrame, *, labels: str, suffix: str) -> Estimate:
    """The largest distance from the published accuracy on the LFC, over the four radii, after training."""
    measures = [measure for measure in PUBLISHED[labels] if measure != "train"]
    own = pd.DataFrame({measure: ends(found, f"{labels}{suffix}", measure) for measure in measures}).dropna()
    return _estimate((own - pd.Series(PUBLISHED[labels])[measures]).abs().max(axis=1))


def _claims() -> Iterator[Claim]:
    natural, shuffled = PUBLISHED["natural"], PUBLISHED["shuffled"]
    ours = "Fig. 3, our comparison"
    for name, (version, suffix) in VERSIONS.items():
        claim = partial(Claim, figure="labels", version=version, comparable=False)
        for measure, radius in (("L4", 4), ("L8", 8), ("L12", 12)):
            same = radius == 12  # as published, .91 and .90
            images = f"the accuracy on the LFC of training images at r = {radius}"
            relation = f"{images} does not depend on" if same else f"{images} is higher with natural than with shuffled"
            yield claim(
                id=f"labels-end-{measure}-{name}",
                section="Fig. 3",
                text=f"At the end of training {relation} labels",
                relation="does not differ" if same else "exceeds",
                statistic=partial(_at_end, measure=measure, suffix=suffix),
                paper=decimals(natural[measure] - shuffled[measure], 2),
            )
            yield claim(
                id=f"labels-equal-{measure}-{name}",
                section=ours,
                text=f"At a training accuracy of .9 {relation} labels",
                relation="does not differ" if same else "exceeds",
                statistic=partial(_at_equal_accuracy, measure=measure, level=0.9, suffix=suffix),
            )
        yield claim(
            id=f"labels-first-L8-{name}",
            section=ours,
            text="Natural labels are learnt through the LFC first: at a training accuracy of .5 the accuracy on the "
            "LFC of training images at r = 8 is higher with natural than with shuffled labels",
            relation="exceeds",
            statistic=partial(_at_equal_accuracy, measure="L8", level=0.5, suffix=suffix),
        )
        yield claim(
            id=f"labels-early-L4-{name}",
            section="Fig. 3",
            text="With shuffled labels the accuracy on the LFC of training images at r = 4 is at most .05 above chance "
            "in the first fifteenth of the epochs",
            relation="at most",
            bound=MARGIN,
            statistic=partial(_early, suffix=suffix),
            paper=decimals(0.0, 2),
        )
        yield claim(
            id=f"labels-start-L4-{name}",
            section="Fig. 3",
            text="After the first epoch the accuracy on the LFC of training images at r = 4 is higher with natural "
            "than with shuffled labels",
            relation="exceeds",
            statistic=partial(_start, suffix=suffix),
            paper=decimals(NATURAL_L4["start"] - CHANCE, 2),
        )
        yield claim(
            id=f"labels-fall-L4-{name}",
            section="Fig. 3",
            text="With natural labels the accuracy on the LFC of training images at r = 4 falls from an early peak to "
            "the end of training",
            relation="exceeds",
            statistic=partial(_fall, suffix=suffix),
            paper=decimals(NATURAL_L4["peak"] - natural["L4"], 2),
        )
        for labels in KINDS:
            yield claim(
                id=f"labels-levels-{labels}-{name}",
                section="Fig. 3",
                text=f"With {labels} labels the accuracies on the LFC of training images at r = 4, 8, 12, 16 end "
                "within .05 of the published ones",
                relation="at most",
                bound=MARGIN,
                statistic=partial(_furthest, labels=labels, suffix=suffix),
                paper=", ".join(decimals(PUBLISHED[labels][f"L{radius}"], 2) for radius in PAPER_RADII),
            )


# ---- the chapter


class LabelsParameters(SeveralSeeds):
    """The parameters of `notebooks/labels.ipynb`."""

    radius: several(_MEASURED, 4) = PAPER_RADII


class LabelsChapter(Chapter):
    """A chapter that can be read before any of its networks is trained: then it shows the published values alone."""

    def _not_stored(self, preset: Preset, seeds: tuple[int, ...]) -> list[str]:
        missing = super()._not_stored(preset, seeds)
        return missing if len(missing) < len(seeds) * len(self.recipes(preset)) else []


LABELS = LabelsChapter(
    name="labels",
    recipes=labels_recipes,
    parameters=LabelsParameters,
    optional=tuple(labels_recipes()),
    claims=tuple(_claims()),
    evidence=table,
)
