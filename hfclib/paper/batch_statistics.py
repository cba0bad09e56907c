"""What BatchNorm's statistics and matched moments do to a network's accuracies: measured, stored, as cells of claims.

The tables are in `data/batchnorm`. The chapter on BatchNorm and `width` read them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache, partial
from itertools import product

import pandas as pd
import torch
from torch import Tensor

from hfclib.batching import BATCH_SIZE, logits
from hfclib.conditions import PAPER_RADII
from hfclib.data.cifar import MEAN, embedded, to_float
from hfclib.devices import best_device
from hfclib.frequency import split
from hfclib.moments import matched
from hfclib.paper.measurements import each_run, measurements
from hfclib.paper.presets import PUBLISHED_SEEDS
from hfclib.paper.stored_tables import stored_table
from hfclib.paper.tables import cell_names, cells_of_shares
from hfclib.runs.collect import Runs
from hfclib.runs.store import Run
from hfclib.training.loop import as_trained
from hfclib.transforms import FEEDS, feed_images

TEST_BATCH = "test-batch statistics for both"
PAIR = ("vanilla", "batchnorm")  # measured in every way; the others under the authors' feed only
COUNTS = {"feeds": 10_000, "where": 2_000, "batch size": 2_000, "mixed": 2_000, "scaled": 1_000}  # images of each part


def conditions(run: Run, variant: str) -> Iterator[dict]:
    """What is measured of a network beyond what its run records: one dictionary of columns per condition.

    "feeds" are whole images and the bands with matched moments, for networks without BatchNorm. Of the PAIR also
    "where" the moments are matched, the "batch size", batches "mixed" half and half with clean images, and the HFC
    "scaled" by 1, 2, 4, 8: by itself, with the mean colour added (feed "mean"), or added to the LFC (band "sum").
    Nothing more is measured of networks that were trained on a band.
    """
    helped = "batch" if run.batch_norm else "matched"
    usual = {"part": "feeds", "band": "hfc", "radius": -1, "feed": "max", "scale": 1, "statistics": helped}
    usual |= {"where": "all", "batch_size": BATCH_SIZE}
    if run.recipe.data.train_band in ("lfc", "hfc"):
        return
    if helped == "matched":
        yield usual | {"band": "x", "feed": "raw"}
        for radius, feed in product(PAPER_RADII, FEEDS if variant in PAIR else ("max",)):
            yield usual | {"radius": radius, "feed": feed}
            if feed != "mean":
                yield usual | {"radius": radius, "feed": feed, "band": "lfc"}
    for radius in PAPER_RADII if variant in PAIR else ():
        at = usual | {"radius": radius}
        for where in ("input", "first", "all") if helped == "matched" else ("all",):
            yield at | {"part": "where", "where": where}
        for size in (10, 1000):
            yield at | {"part": "batch size", "batch_size": size}
        yield at | {"part": "mixed"}
        for scale, statistics in product((1, 2, 4, 8), ("running", helped)):
            for band, feed in (("hfc", "raw"), ("hfc", "mean"), ("sum", "raw")):
                scaled = {"part": "scaled", "band": band, "feed": feed, "scale": scale, "statistics": statistics}
                yield at | scaled


def measure(run: Run, variant: str, counts: Mapping[str, int] = COUNTS) -> pd.DataFrame:
    """The rows of `conditions` with two more columns: images (their number) and accuracy [0, 1].

    Args:
        run: of a network of the chapter.
        variant: which one.
        counts: parts to measure, and on how many test images: the first, and no more than the run's final_images.
    """
    model = run.model().to(best_device())
    images, labels = (tensor[: min(max(counts.values()), run.recipe.final_images)] for tensor in embedded("test"))
    images, reference = to_float(images), as_trained(embedded("train")[0][: run.recipe.data.train_images], run.recipe)
    network = cache(lambda where: matched(model, reference, where=where))
    bands = cache(lambda radius: split(images, radius))
    rows = []
    for row in (row for row in conditions(run, variant) if row["part"] in counts):
        count = min(counts[row["part"]], len(images))
        parts = images, *(bands(row["radius"]) if row["radius"] >= 0 else ())
        fed = _fed(row, *(part[:count] for part in parts))
        asked = network(row["where"]) if row["statistics"] == "matched" else model
        bn_stats = "batch" if row["statistics"] == "batch" else "running"
        classes = logits(asked, fed, bn_stats=bn_stats, batch_size=row["batch_size"], amp=True).argmax(dim=1)
        own = classes[1::2] if row["part"] == "mixed" else classes
        rows.append(row | {"images": count, "accuracy": (own == labels[:count]).double().mean().item()})
    return pd.DataFrame(rows)


def _fed(row: Mapping, images: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if row["band"] == "x":
        return images
    if row["band"] == "sum":
        return low + row["scale"] * high
    band = low if row["band"] == "lfc" else row["scale"] * high
    fed = feed_images(band, row["feed"], add_mean=row["band"] == "hfc", colour=MEAN)
    if row["part"] == "mixed":  # every other image is a clean one, and not the one whose HFC stands next to it
        fed = torch.stack([images.roll(len(images) // 2, 0), fed], dim=1).flatten(0, 1)
    return fed


stored = partial(stored_table, "batchnorm")


def published_counts(run: Run, variant: str) -> dict[str, int]:
    """The parts of COUNTS that are published of a run: all of them, or what the claims need of further seeds."""
    parts = {row["part"] for row in conditions(run, variant)}
    shown = parts if run.seed in PUBLISHED_SEEDS else parts & {"feeds"}
    return {part: count for part, count in COUNTS.items() if part in shown}


def table(runs: Runs, *, compute: Collection[int] = ()) -> pd.DataFrame:
    """Accuracies on test images, from the runs themselves and from what was measured beside them.

    Args:
        runs: by variant.
        compute: the seeds of which to measure what is not stored; it takes minutes per network and is not kept.
    Returns:
        The `measurements`, with the columns of `conditions`. The statistics, bn_stats, are "running" where nothing
        depends on the test batch, "batch" for BatchNorm with the test batch's, or "matched".
    """
    parts = []
    for variant, run in each_run(runs):
        own = measurements(run.final, variant, run).query("split == 'test' and attack == 'none'")
        beside = stored(run)
        if beside is None and run.seed in compute and run.has_weights and any(conditions(run, variant)):
            beside = measure(run, variant)
        parts.append(own.assign(part="feeds", scale=1, where="all", batch_size=BATCH_SIZE))
        if beside is not None:
            parts.append(measurements(beside, variant, run).assign(split="test"))
    return pd.concat(parts, ignore_index=True)


# What claims are measured as: by variant, the statistics; and the feed of bands.
BATCH_CONDITIONS = {
    TEST_BATCH: ({"batchnorm": "batch", "vanilla": "matched"}, "max"),
    "max, running": ({}, "max"),
    "range, running": ({}, "range"),
}


def measured_cells(measured: pd.DataFrame) -> pd.DataFrame:
    """The cells of the claims, from a `table`: whole images with running averages, bands as in `BATCH_CONDITIONS`."""
    rows = measured[measured["part"] == "feeds"]
    rows = cells_of_shares(rows.assign(measure=cell_names(rows), sample="test"))
    parts = [rows.query("band == 'x' and feed == 'raw' and bn_stats == 'running'").assign(measured="")]
    for way, (statistics, feed) in BATCH_CONDITIONS.items():
        wanted = rows["variant"].map(statistics) if statistics else "running"
        bands = rows[(rows["band"] != "x") & (rows["feed"] == feed) & (rows["bn_stats"] == wanted)]
        parts.append(bands.assign(measured=way))
    return pd.concat(parts, ignore_index=True)
