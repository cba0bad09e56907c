"""The chapter on BatchNorm: why does it look as if it read the HFC? Its recipes, measurements, claims and figures.

`python -m hfclib.paper.batchnorm` measures the stored networks and writes one table per network to `data/batchnorm`,
with a description of where it comes from. Networks whose table is there already are skipped.
"""

import io
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from hfclib._files import data_folder, home, sha256, write
from hfclib.data.cifar import embedded, to_float
from hfclib.devices import best_device, device_name
from hfclib.evaluation import BATCH_SIZE, PAPER_RADII, logits
from hfclib.frequency import split
from hfclib.moments import matched
from hfclib.paper.fig1 import fig1_recipes
from hfclib.paper.fig2 import fig2_recipes
from hfclib.paper.intervals import Estimate, MissingRunError, interval
from hfclib.paper.presets import Preset, adversarial_recipes, base_recipe, fig4_recipes
from hfclib.paper.published import fig4_difference
from hfclib.paper.tables import decimals
from hfclib.paper.verdicts import Claim
from hfclib.runs.collect import Runs, stored_runs
from hfclib.runs.predictions import weights_of
from hfclib.runs.store import Run, RunError
from hfclib.runs.train import code_commit
from hfclib.training.recipe import Recipe
from hfclib.transforms import FEEDS, feed_images

PAIR = ("vanilla", "batchnorm")  # measured in every way; the others under the authors' feed only
COUNTS = {"feeds": 10_000, "where": 2_000, "batch size": 2_000, "mixed": 2_000, "scaled": 1_000}  # images of each part
SCALES = (1, 2, 4, 8)
TITLES = {
    "vanilla": "Vanilla",
    "dropout": "Dropout",
    "mixup": "Mix-up",
    "batchnorm": "BatchNorm",
    "adversarial": "Adversarial training",
    "adversarial_batchnorm": "Adversarial, BatchNorm",
    "fullwidth": "BatchNorm, width 64",
    "groupnorm": "GroupNorm",
}


def batchnorm_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks among which BatchNorm's use of the HFC is looked for: vanilla, dropout, mixup and batchnorm of
    Fig. 4, and groupnorm.

    Source: ours. GroupNorm (Wu and He 2018) normalises each image by itself, in training and at test time alike: where
    it acts as BatchNorm does, statistics of batches are not the cause.
    """
    variants = fig4_recipes(preset)
    chosen = {variant: variants[variant] for variant in ("vanilla", "batchnorm", "mixup", "dropout")}
    base = base_recipe(preset)
    return chosen | {"groupnorm": replace(base, name=f"{base.name}-groupnorm", norm="group")}


def fig6_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """Networks trained on the LFC, without BatchNorm and with it: lfc4 to lfc16 of Table 1, batchnorm_lfc4 to
    batchnorm_lfc16.

    Source: paper, section 5.2 and Fig. 6; bands are rescaled as in `fig1`.
    """
    base = base_recipe(preset)
    plain = {name: one for name, one in fig1_recipes(preset).items() if one.train_band == "lfc"}
    normed = {
        f"batchnorm_{variant}": replace(recipe, name=f"{base.name}-batchnorm_{variant}", norm="batch")
        for variant, recipe in plain.items()
    }
    return plain | normed


def ablation_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """vanilla and batchnorm of Fig. 4 without augmentation: vanilla_noaug, batchnorm_noaug.

    Source: ours: "laptop" departs from the paper in schedule, batch size, length and augmentation; this takes back one.
    Where the preset has no augmentation anyway, there is none to take back and no recipe.
    """
    variants = fig4_recipes(preset)
    augmented = {variant: variants[variant] for variant in PAIR if variants[variant].augment}
    return {
        f"{variant}_noaug": replace(recipe, name=f"{recipe.name}_noaug", augment=False)
        for variant, recipe in augmented.items()
    }


def chapter_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """Every network of the chapter, by variant: those of `batchnorm_recipes` and `fig6_recipes`, adversarial training
    with and without BatchNorm, and fullwidth of Fig. 2."""
    return batchnorm_recipes(preset) | adversarial_recipes(preset) | fig2_recipes(preset) | fig6_recipes(preset)


# ---- measuring


def conditions(run: Run, variant: str) -> Iterator[dict]:
    """What is measured of a network beyond what its run records: one dictionary of columns per condition.

    "feeds" are the bands with matched moments, for networks without BatchNorm. Of the PAIR also "where" the moments are
    matched, the "batch size", batches "mixed" half and half with clean images, and the HFC "scaled" by 1, 2, 4, 8: by
    itself, with the mean colour added (feed "mean"), or added to the LFC (band "sum").
    """
    helped = "batch" if run.recipe.norm == "batch" else "matched"
    usual = {"part": "feeds", "band": "hfc", "radius": -1, "feed": "max", "scale": 1, "statistics": helped}
    usual |= {"where": "all", "batch_size": BATCH_SIZE}
    if helped == "matched":
        yield usual | {"band": "x", "feed": "raw"}
        for radius, feed in product(PAPER_RADII, FEEDS if variant in PAIR else ("max",)):
            yield usual | {"radius": radius, "feed": feed}
            if feed != "mean":
                yield usual | {"radius": radius, "feed": feed, "band": "lfc"}
    for radius in PAPER_RADII if variant in PAIR else ():
        at = usual | {"radius": radius}
        for where in ("input", "first") if helped == "matched" else ():
            yield at | {"part": "where", "where": where}
        for size in (10, 1000):
            yield at | {"part": "batch size", "batch_size": size}
        yield at | {"part": "mixed"}
        for scale, statistics in product(SCALES, ("running", helped)):
            for band, feed in (("hfc", "raw"), ("hfc", "mean"), ("sum", "raw")):
                scaled = {"part": "scaled", "band": band, "feed": feed, "scale": scale, "statistics": statistics}
                yield at | scaled


def measure(run: Run, variant: str, counts: Mapping[str, int] = COUNTS) -> pd.DataFrame:
    """The rows of `conditions` with two more columns: images (their number) and accuracy [0, 1].

    Args:
        run: of a network of the chapter.
        variant: which one.
        counts: test images of each part, at most; the first of the test set, and no more than the run's final_images.
    """
    device = best_device()
    model = run.model().to(device)
    images, labels = (tensor[: run.recipe.final_images] for tensor in embedded("test"))
    images = to_float(images)
    reference = to_float(embedded("train")[0])
    network = cache(lambda where: matched(model, reference, where=where))
    bands = cache(lambda radius: split(images, radius))
    rows = []
    for row in conditions(run, variant):
        count = min(counts[row["part"]], len(images))
        fed = _fed(images[:count], [part[:count] for part in bands(row["radius"])] if row["radius"] >= 0 else None, row)
        asked = network(row["where"]) if row["statistics"] == "matched" else model
        bn_stats = "batch" if row["statistics"] == "batch" else "running"
        found = logits(asked, fed, bn_stats=bn_stats, batch_size=row["batch_size"], amp=True).argmax(dim=1)
        if row["part"] == "mixed":
            found = found[1::2]
        right = (found == labels[:count]).double().mean().item()
        rows.append(row | {"images": count, "accuracy": round(right, 6)})
    return pd.DataFrame(rows)


def _fed(images: Tensor, bands: list[Tensor] | None, row: Mapping) -> Tensor:
    if bands is None:
        return images
    low, high = bands
    if row["band"] == "sum":
        return low + row["scale"] * high
    band = low if row["band"] == "lfc" else row["scale"] * high
    fed = feed_images(band, row["feed"], add_mean=row["band"] == "hfc")
    if row["part"] == "mixed":  # every other image is a clean one, and not the one whose HFC stands next to it
        fed = torch.stack([images.roll(len(images) // 2, 0), fed], dim=1).flatten(0, 1)
    return fed


def store(run: Run, variant: str, folder: Path) -> None:
    """Measure a network and write `<folder>/<run>.csv` and, naming its checksum, `<run>.json`."""
    start = time.monotonic()
    table = measure(run, variant).to_csv(index=False).encode()
    device = best_device()
    origin = {
        "weights": weights_of(run.path),
        "sha256": sha256(table),
        "commit": code_commit(),
        "device": device_name(device),
        "torch": torch.__version__,
        "seconds": round(time.monotonic() - start),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / f"{run.path.name}.csv", table)
    write(folder / f"{run.path.name}.json", (json.dumps(origin, indent=2) + "\n").encode())


def stored(run: Run) -> pd.DataFrame | None:
    """The rows that were measured of a run's own weights, published or your own; None where there are none.

    Raises:
        RunError: a table is damaged.
    """
    for folder in (data_folder() / "batchnorm", home() / "batchnorm"):
        path = folder / f"{run.path.name}.json"
        if path.exists() and (origin := json.loads(path.read_text()))["weights"] == weights_of(run.path):
            content = path.with_suffix(".csv").read_bytes()
            if sha256(content) != origin["sha256"]:
                raise RunError(f"{path.with_suffix('.csv')} is damaged: delete it and {path.name}, and run again")
            return pd.read_csv(io.BytesIO(content))
    return None


def table(runs: Runs, *, compute: bool = False) -> pd.DataFrame:
    """The chapter's table: accuracies on test images, from the runs themselves and from what was measured beside them.

    Args:
        runs: by variant.
        compute: measure what is not stored, and keep it in `<home>/batchnorm`.
    Returns:
        One row per measurement: variant, seed, the columns of `conditions`, images, accuracy. `statistics` is
        "running" for whatever is fixed before the test, "batch" for BatchNorm by the test batch, or "matched".
    """
    parts = []
    for variant, run in ((variant, run) for variant, ones in runs.items() for run in ones):
        own = run.final[run.final["split"] == "test"].rename(columns={"bn_stats": "statistics"}).drop(columns="split")
        own = own.assign(part="feeds", scale=1, where="all", batch_size=BATCH_SIZE)
        if compute and next(conditions(run, variant), None) and stored(run) is None:
            store(run, variant, home() / "batchnorm")
        parts += [part.assign(variant=variant, seed=run.seed) for part in (own, stored(run)) if part is not None]
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    """Measure every stored network of the chapter at "laptop" that has no table in `data/batchnorm` yet."""
    recipes = chapter_recipes()
    runs = stored_runs(recipes, range(10), optional=recipes)
    for variant, ones in sorted(runs.items(), key=lambda item: item[0] not in PAIR):
        for run in ones:
            if next(conditions(run, variant), None) and stored(run) is None:
                store(run, variant, data_folder() / "batchnorm")
                print(run.path.name, flush=True)


# ---- claims


def by_seed(table: pd.DataFrame, variant: str, statistics: str, band: str, radius: int, feed: str) -> pd.Series:
    """Accuracy of a network by seed, on all images of the part "feeds"."""
    rows = table[
        (table["part"] == "feeds")
        & (table["variant"] == variant)
        & (table["statistics"] == statistics)
        & (table["band"] == band)
        & (table["radius"] == radius)
        & (table["feed"] == feed)
    ]
    return rows.set_index("seed")["accuracy"]


def _difference(table: pd.DataFrame, signed: Mapping[tuple, int]) -> Estimate:
    """A signed sum of `by_seed`, over the seeds that all of its terms have."""
    values = sum(sign * by_seed(table, *term) for term, sign in signed.items()).dropna()
    if values.empty:
        raise MissingRunError("no seed has all the runs of the claim")
    return Estimate(*interval(values), seeds=len(values))


def _claims() -> Iterator[Claim]:
    def claim(name: str, text: str, version: str, signed: Mapping, section: str, paper: float | None = None) -> Claim:
        return Claim(
            id=f"batchnorm-{name}",
            figure="batchnorm",
            section=section,
            text=text,
            version=version,
            relation="exceeds",
            statistic=partial(_difference, signed=signed),
            paper=None if paper is None else decimals(paper, 2),
        )

    for radius in (4, 8, 12):
        hfc = ("hfc", radius)
        yield claim(
            f"left-H{radius}",
            f"BatchNorm makes the network more accurate on the HFC at r = {radius} than vanilla training does",
            "max feed; both standardised by the test batch",
            {("batchnorm", "batch", *hfc, "max"): 1, ("vanilla", "matched", *hfc, "max"): -1},
            "section 5.2, Fig. 5",
            fig4_difference("batchnorm", f"H{radius}"),
        )
        yield claim(
            f"help-H{radius}",
            f"Matched moments make vanilla more accurate on the HFC at r = {radius}",
            "max feed",
            {("vanilla", "matched", *hfc, "max"): 1, ("vanilla", "running", *hfc, "max"): -1},
            "not in the paper: our control",
        )
    yield claim(
        "groupnorm-H4",
        "GroupNorm makes the network more accurate on the HFC at r = 4 than vanilla training does",
        "max feed",
        {("groupnorm", "running", "hfc", 4, "max"): 1, ("vanilla", "running", "hfc", 4, "max"): -1},
        "not in the paper: our control",
    )
    for name, where, of in (("x", "whole images", ("x", -1, "raw")), ("xl", "the LFC", None)):
        gain = {
            (variant, "running", *(of or ("lfc", radius, "range"))): sign
            for radius, way in ((16, 1), (4, -1))
            for variant, sign in ((f"batchnorm_lfc{radius}", way), (f"lfc{radius}", -way))
        }
        yield claim(
            f"lfc-{name}",
            f"Trained on the LFC, BatchNorm gains more accuracy on {where} at r = 16 than at r = 4",
            "running statistics",
            gain,
            "section 5.3, Fig. 6",
        )


if __name__ == "__main__":
    main()
