"""The accuracy of a report: counted batch by batch, stored every few seconds, and gone on with after a stop."""

import copy
import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from hfclib.batching import BATCH_SIZE, batch_size_of, batches, logits, whole_batches
from hfclib.conditions import BnStats, uses_batch_statistics
from hfclib.moments import Matched
from hfclib.reporting.datasets import DatasetSpec
from hfclib.reporting.metric import READ, BandAccuracy, Classifier
from hfclib.reporting.settings import FittedSettings

STORED_EVERY = 10  # seconds between two states of a part under way
CHANGED = "the data are not those that the report was begun with: choose another folder"


def digest(values: Iterable[object]) -> str:
    """The SHA-256 of tensors and of what else a network's state holds."""
    total = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor) and not value.is_quantized:
            total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        else:  # such as what a quantised layer keeps
            total.update(repr(value).encode())
    return total.hexdigest()


def data_digest(network: Classifier, data: Iterable) -> str:
    """The digest of all images and labels in their order, whatever the size of the batches: data_sha256."""
    total, stream = hashlib.sha256(), tqdm(batches(network, data), "comparing the data", disable=None, leave=False)
    for batch in whole_batches(stream, BATCH_SIZE):
        total.update(digest(batch).encode())
    return total.hexdigest()


class Counting:
    """The accuracy of a network, with both statistics of BatchNorm, or with matched moments as "matched".

    Args:
        network, with_moments: the network, and the same with matched moments, if it has no BatchNorm.
        settings: how to measure.
        start: the counts so far, as `store` was given them; an empty dictionary for none.
        store: called every few seconds with the counts so far.
    """

    def __init__(
        self,
        network: Classifier,
        with_moments: Matched | None,
        settings: FittedSettings,
        start: dict,
        store: Callable[[dict], None],
    ) -> None:
        both = uses_batch_statistics(network) and not settings.quick
        statistics: Sequence[BnStats] = ("running", "batch") if both else ("running",)
        feeds = ("mean",) if settings.quick else ("raw", "mean")
        options: dict = {"feeds": feeds, "colour": settings.colour, "batch_size": settings.batch_size}
        self.metrics = [BandAccuracy(network, settings.radii, bn_stats=statistics, by_class=True, **options)]
        if with_moments and not settings.quick:
            self.metrics.append(BandAccuracy(with_moments, settings.radii, **options))
        self.network, self.settings, self.store = network, settings, store
        self.start = start or {"batches": 0, "sha256": None, "counts": []}
        for metric, counts in zip(self.metrics, self.start["counts"], strict=False):
            metric.add(counts)

    def count(self, data: DatasetSpec, engine: Callable[[Callable, Iterable], Iterable]) -> str:
        """Count what is missing of the data; `engine` as in `hfclib.reporting.make.make_report`. Returns data_sha256.

        Raises:
            ValueError: what was counted before has changed.
        """
        total, start = hashlib.sha256(), self.start
        digests: deque[str] = deque()

        def missing() -> Iterator[tuple[Tensor, Tensor]]:
            number = 0
            stream = tqdm(batches(self.network, data.batches), "accuracy", disable=None, leave=False)
            for number, batch in enumerate(whole_batches(stream, BATCH_SIZE), 1):
                total.update(digest(batch).encode())
                if number > start["batches"]:
                    digests.append(total.hexdigest())
                    yield batch
                elif number == start["batches"] and total.hexdigest() != start["sha256"]:
                    raise ValueError(CHANGED)
            if number < start["batches"]:
                raise ValueError(CHANGED)

        stored = time.monotonic()
        answers = self.network if data.unlabelled else None
        counted = engine(partial(_counts, self.metrics, answers), missing())
        for number, results in enumerate(counted, start["batches"] + 1):
            sha256 = digests.popleft()
            for metric, counts in zip(self.metrics, results, strict=True):
                metric.add(counts)
            if time.monotonic() - stored > STORED_EVERY:
                counts = [metric.counts() for metric in self.metrics]
                self.store({"batches": number, "sha256": sha256, "counts": counts})
                stored = time.monotonic()
        return total.hexdigest()

    def rows(self) -> list[dict]:
        """The rows of the part "accuracy", see `BandAccuracy.compute`."""
        tables = [metric.compute() for metric in self.metrics]
        table = pd.concat([tables[0], *(table.assign(bn_stats="matched") for table in tables[1:])])
        return table.astype(object).where(table.notna(), None).to_dict("records")

    def class_rows(self, names: Mapping[int, str]) -> list[dict]:
        """The rows of the part "classes", one per class and radius.

        Each has class, name (None if it is not known), radius, images, and so many that are right as they are (whole),
        by their LFC (lfc), by their HFC with the mean colour.
        """
        table = self.metrics[0].by_class_counts().query("bn_stats == 'running'")
        key = ["class", "radius"]
        whole = table[table["band"] == "x"].set_index("class")
        bands = {
            band: table[(table["band"] == band) & (table["feed"] == feed)].set_index(key)["correct"]
            for band, feed in READ.items()
        }
        return [
            {
                "class": number,
                "name": names.get(number),
                "radius": radius,
                "images": int(whole.loc[number, "images"]),
                "whole": int(whole.loc[number, "correct"]),
                **{band: int(counts.loc[number, radius]) for band, counts in bands.items()},
            }
            for radius in self.settings.radii
            for number in whole.index
        ]


def _counts(metrics: Sequence[BandAccuracy], answers: Classifier | None, batch: tuple[Tensor, Tensor]) -> list[dict]:
    """What each metric counts on a batch alone; without labels, an image's label is the answer for the whole of it."""
    metrics = [copy.copy(metric) for metric in metrics]  # each thread has its own
    images, labels = batch
    if answers is not None:
        labels = logits(answers, images, batch_size=batch_size_of(answers, metrics[0].batch_size)).argmax(dim=1)
    for metric in metrics:
        metric.reset()
        metric.update(images, labels)
    return [metric.counts() for metric in metrics]
