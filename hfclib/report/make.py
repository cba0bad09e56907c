"""The report: its parts measured one by one, each stored at once, and what is read from it."""

import copy
import hashlib
import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from hfclib._files import locked, write
from hfclib.attacks.checks import check_count, number_of, warn_if_probabilities
from hfclib.batching import BATCH_SIZE, batches, known_size, logits, whole_batches
from hfclib.conditions import PAPER_RADII, uses_batch_statistics
from hfclib.devices import device_of
from hfclib.frequency import each_radius, nyquist
from hfclib.metrics import mean_colour
from hfclib.moments import Matched, matched, norm_places
from hfclib.report import page, parts
from hfclib.report.metric import BandAccuracy, Classifier, counted
from hfclib.report.rules import Rule, check_rules
from hfclib.report.stored import SCHEMA, Report, check_same_data, read_report
from hfclib.transforms import feed_images

FRACTIONS = (0.125, 0.25, 0.5, 0.75)  # of Nyquist: the radii of images beyond 32 pixels
STORED_EVERY = 10  # seconds between two states of a part under way
_CHANGED = "the data are not those that the report was begun with: choose another folder"
log = logging.getLogger(__name__)


def make_report(
    model: Callable,
    data: tuple[Tensor, Tensor] | Iterable,
    folder: str | Path = "report",
    *,
    name: str = "a network",
    radii: float | Sequence[float] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    colour: Sequence[float] | None = None,
    images: int = 256,
    grid: int = 15,
    norm: float | None = None,
    eps: float | None = None,
    steps: int = 10,
    seed: int = 0,
    rules: Sequence[str] = (),
    skipped: int = 0,
    compare: Sequence["Report | str | Path"] = (),
    pictures_sha256: str | None = None,
    engine: Callable[[Callable, Iterable], Iterable] = map,
) -> Report:
    """Measure a classifier and write a report; one that was stopped goes on with what is missing.

    The accuracy goes on after the images that were counted: they are read again, for data_sha256, and not classified.
    Once it is stored, all images and labels are read again at each call, and refused if one has changed since. Of the
    network its weights are compared, and its predictions for the first 100 images.

    Args:
        model: any classifier, see `Classifier`.
        data: (images, labels), float (N, C, H, W) in [0, 1] and (N,); or batches that can be read more than once, such
            as a DataLoader, see `hfclib.batching.batches`.
        folder: of the report, made if it is missing.
        radii: as in `band_accuracy`, at which images have two parts; by default those of PAPER_RADII up to 32 pixels,
            and beyond those at FRACTIONS of the Nyquist frequency, see `nyquist`.
        mean, std: that the model expects its input to be normalised by, see `Classifier`; not with a model that is one.
        colour: the mean colour of the data; None takes that of all of them, which are then read once for it, before the
            accuracy reads them; a report that goes on has it already.
        images: so many of the first images are used for all parts but the accuracy.
        grid, norm: of `heat_map`. By default the noise has the norm 4 in 32 x 32 pixels, and the same size per pixel.
        eps, steps: of PGD, see `attack_energy`. By default eps is norm / 8, which is .5 in 32 x 32 pixels.
        seed: of all random numbers.
        rules: checked here for radii that are not measured; see `Rule`.
        skipped: the number of images that were left out of the data because they can't be read, to be reported.
        compare: reports of other networks on the same data, or their report.json, whose curves are drawn behind. Only
            the page has them. The data are read once before the work, to be compared.
        pictures_sha256: of the pictures that the data are made of and their labels, see `NamedData`: reports of the
            same pictures in other sizes can be compared.
        engine: applies a function to each batch of the accuracy and each frequency of the heat map, and gives the
            results in order: `map`, or what `hfclib.runs.ray.ray_map` gives, for a model on the CPU.
    Raises:
        TypeError, ValueError: bad data or settings, a report to compare with that is not finished, of another schema or
            of other data; or the folder has a report with other settings, of another network, or of data that have
            changed.
        OSError: a report to compare with can't be read.
    """
    others = [other if isinstance(other, Report) else read_report(other) for other in compare]
    network = Classifier.of(model, mean, std)
    data = _batches_of(data)
    for count, value, least in (("grid", grid, 2), ("steps", steps, 0), ("images", images, 2), ("seed", seed, 0)):
        check_count(count, value, least)
    seed, steps, grid, images = int(seed), int(steps), int(grid), int(images)  # which may be NumPy's
    some, labels = _first(network, data, images)
    side = min(some.shape[-2:])
    highest = math.hypot(*(side // 2 for side in some.shape[-2:]))  # in DFT bins
    if radii is None:
        shares = [nyquist(share, some) for share in FRACTIONS]
        radii = [radius for radius in PAPER_RADII if radius <= highest] if side <= 32 else shares
    radii = sorted(int(radius) if radius == int(radius) else radius for radius in each_radius(radii))
    if not radii or not 0 < min(radii) <= max(radii) <= highest:
        raise ValueError(f"expected radii above 0 and up to {highest:.1f} bins, got {radii}")
    norm = norm if norm is not None else math.sqrt(some.shape[-2] * some.shape[-1]) / 8
    eps = eps if eps is not None else norm / 8
    norm, eps = number_of("norm", norm), number_of("eps", eps)
    check_rules(map(Rule.parse, rules), radii)
    folder, first, colour_given = Path(folder), _digest([some, labels]), colour is not None
    colour = [float(value) for value in colour] if colour is not None else _colour(data, folder, first)
    feed_images(some[:1], "mean", add_mean=True, colour=colour)  # refuses another number of channels
    known, scores = known_size(data), logits(network, some[:BATCH_SIZE])
    helped = _matched(network, some)
    settings = {"name": name, "radii": radii, "mean": network.mean, "std": network.std, "colour": colour}
    settings |= {"size": list(some.shape[1:]), "classes": scores.shape[1], "known_images": known}
    settings |= {"first_images": len(some), "grid": grid, "norm": norm, "eps": eps, "steps": steps, "seed": seed}
    settings |= {"skipped_images": skipped} if skipped else {}
    # Not all of a network is in its weights: a filter's radius and a callable are not. Its predictions tell them apart.
    key = {"settings": settings, "weights_sha256": _digest(network.state_dict().values())}
    key |= {"first_images_sha256": first, "first_predictions_sha256": _digest([scores.argmax(dim=1)])}
    key = json.loads(json.dumps(key))
    digest = _data_digest(network, data) if others else None
    for other in others:
        check_same_data({"data_sha256": digest, "pictures_sha256": pictures_sha256}, other.content)
    with locked(folder / "report.lock", say=log.warning):  # where the same command runs twice, one waits
        content = _begun(folder, key)
        if "accuracy" in content["parts"] and (digest or _data_digest(network, data)) != content["data_sha256"]:
            raise ValueError(_CHANGED)
        content |= {"pictures_sha256": pictures_sha256, "colour_given": colour_given}
        log.info("radii in DFT bins: %s; mean colour: %s", radii, [round(value, 3) for value in colour])
        _guard(scores, labels[: len(scores)], len(some))
        _estimate(network, some, known or len(some), len(radii), grid, steps)
        file = folder / "report.json"
        measures = {
            "accuracy": lambda: _accuracy(network, helped, data, radii, colour, content, file, engine),
            "heat_map": lambda: parts.heat_map(network, some, labels, grid=grid, norm=norm, seed=seed, engine=engine),
            "noise": lambda: parts.band_noise(network, some, labels, radii, norm=norm, seed=seed),
            "energy": lambda: parts.attack_energy(network, some, labels, radii, eps=eps, steps=steps),
            "misaligned": lambda: parts.misaligned_images(network, some, labels, radii, colour=colour),
            "phase": lambda: parts.phase_or_amplitude(network, some, labels, seed=seed),
        }
        for number, (part, measure) in enumerate(measures.items(), 1):
            stored = part in content["parts"]
            log.info("%d of %d: %s%s", number, len(measures), part, " is stored" if stored else "")
            if not stored:
                content["parts"][part] = measure()
                write(file, _json(content))
            write(folder / f"{part}.csv", pd.DataFrame(content["parts"][part]).to_csv(index=False).encode())
        report = Report(folder, content)
        content["summary"] = page.summary(report)
        write(file, _json(content))
        write(folder / "report.html", page.html(report, some, others).encode())
        page.card(report).savefig(folder / "card.png")
    return report


def _batches_of(data: tuple[Tensor, Tensor] | Iterable) -> Iterable:
    """The data as batches that can be read more than once; TypeError or ValueError for other things."""
    if isinstance(data, str | Path):
        advice = "hfclib.report.sources.named_data(folder, sizes=...).batches reads one"
        raise ValueError(f"expected images and labels, or batches of them, got the name {str(data)!r}: {advice}")
    if isinstance(data, Tensor) or not isinstance(data, Iterable):
        raise TypeError(f"expected images and labels, or batches of them, got {type(data).__name__} alone")
    if iter(data) is data:
        raise ValueError("expected data that can be read more than once, such as a DataLoader, got an iterator")
    return [data] if isinstance(data, tuple) and isinstance(data[0], Tensor) else data


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()  # NaN is no JSON


def _digest(values: Iterable[object]) -> str:
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor) and not value.is_quantized:
            found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        else:  # such as what a quantised layer keeps
            found.update(repr(value).encode())
    return found.hexdigest()


def _first(network: Classifier, data: Iterable, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` images and their labels, on the device of the network."""
    held, found = [], 0
    for part, classes in batches(network, data):
        held.append((part[: count - found], classes[: count - found]))
        found += len(held[-1][0])
        if found >= count:
            break
    if found < 2:
        raise ValueError(f"expected at least two images, got {found}")
    images, labels = (torch.cat(tensors).to(device_of(network)) for tensors in zip(*held, strict=True))
    return images.float(), labels


def _data_digest(network: Classifier, data: Iterable) -> str:
    """The digest of all images and labels in their order, whatever the size of the batches: data_sha256."""
    total, stream = hashlib.sha256(), tqdm(batches(network, data), "comparing the data", disable=None, leave=False)
    for batch in whole_batches(stream, BATCH_SIZE):
        total.update(_digest(batch).encode())
    return total.hexdigest()


def _colour(data: Iterable, folder: Path, first: str) -> list[float]:
    """The mean colour of the data: that of the folder's report, if that found it in data with these first images."""
    stored, measured = None, False
    with suppress(OSError, KeyError, TypeError, ValueError):  # no report, or one that `_begun` names
        content = json.loads((folder / "report.json").read_bytes())
        if content["key"]["first_images_sha256"] == first and not content.get("colour_given", True):
            stored, measured = content["key"]["settings"]["colour"], "accuracy" in content["parts"]
    if stored and measured:  # all the data are then compared
        return stored
    log.info("reading the images once for their mean colour")
    colour = mean_colour(data, progress=True)
    # Images that were not counted yet may have changed. Another processor rounds the same mean in another way.
    if stored and not np.allclose(colour, stored, rtol=0, atol=1e-6):
        raise ValueError(_CHANGED)
    return stored or colour


def _begun(folder: Path, key: dict) -> dict:
    """The content of the report in the folder if it was begun with this key; else a new one."""
    file = folder / "report.json"
    if not file.exists():
        if taken := [one.name for one in folder.iterdir() if one.suffix in (".csv", ".html", ".png")]:
            raise ValueError(f"{folder} has {', '.join(sorted(taken)[:3])} and no report: choose another folder")
        return {"schema": SCHEMA, "hfclib": version("hfclib"), "key": key, "data_sha256": None, "parts": {}}
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): delete it to measure again") from error
    if not isinstance(content, dict) or not {"schema", "key", "parts"} <= set(content):
        raise ValueError(f"{file} is no report: choose another folder")
    if content["schema"] != SCHEMA or content["key"] != key:
        other = [name for name in key if key[name] != content["key"].get(name)]
        hint = " (shuffled data are others each time)" if "first_images_sha256" in other else ""
        found = f"{', '.join(other) or 'schema'}{hint}"
        raise ValueError(f"{folder} has a report of another {found}: choose another folder")
    return content


def _guard(scores: Tensor, labels: Tensor, images: int) -> None:
    """Warn if the logits look like probabilities, or the accuracy on the first batch like guessing."""
    warn_if_probabilities(scores)
    correct = counted(int((scores.argmax(dim=1) == labels).sum()), len(labels))
    if correct["low"] <= 1 / scores.shape[1]:
        right = f"{correct['correct']} of the first {len(labels)} images are right, which can't be told from guessing"
        asked = "are its mean and std as it expects, its weights loaded, and the labels in its order of classes?"
        log.warning("%s: %s", right, asked)
    if images < BATCH_SIZE:
        log.info("only %d images: expect wide intervals", images)


def _estimate(network: Classifier, images: Tensor, known: int, radii: int, grid: int, steps: int) -> None:
    """Log how long the report will take, from the time of a batch of whole images."""
    start = time.perf_counter()
    logits(network, images[:100])
    seconds = (time.perf_counter() - start) / len(images[:100])
    passes = known * 2 * (1 + 3 * radii) + len(images) * (grid * grid // 2 + 4 * radii + 3 * steps)
    log.info("about %.1f minutes for %d images", seconds * passes / 60, known)


def _accuracy(
    network: Classifier, helped: Matched | None, data: Iterable, radii, colour, content: dict, file: Path, engine
) -> list[dict]:
    """The rows of `BandAccuracy`, with both statistics, or with matched moments as "matched".

    Every few seconds the counts so far go into `file`, as "counted" of the report's content.
    """
    feeds, statistics = ("raw", "mean"), ("running", "batch")[: 1 + uses_batch_statistics(network)]
    plain = BandAccuracy(network, radii, feeds=feeds, bn_stats=statistics, colour=colour)
    metrics = [plain, BandAccuracy(helped, radii, feeds=feeds, colour=colour)] if helped else [plain]
    start = content.get("counted", {"batches": 0, "sha256": None, "counts": []})
    for metric, counts in zip(metrics, start["counts"], strict=False):
        metric.add(counts)
    total, digests = hashlib.sha256(), deque()

    def missing() -> Iterator[tuple[Tensor, Tensor]]:
        number = 0
        stream = tqdm(batches(network, data), disable=None, leave=False)
        for number, batch in enumerate(whole_batches(stream, BATCH_SIZE), 1):
            total.update(_digest(batch).encode())
            if number > start["batches"]:
                digests.append(total.hexdigest())
                yield batch
            elif number == start["batches"] and total.hexdigest() != start["sha256"]:
                raise ValueError(_CHANGED)
        if number < start["batches"]:
            raise ValueError(_CHANGED)

    stored = time.monotonic()
    found = engine(partial(_counts, [copy.copy(metric) for metric in metrics]), missing())
    for number, results in enumerate(found, start["batches"] + 1):
        digest = digests.popleft()
        for metric, counts in zip(metrics, results, strict=True):
            metric.add(counts)
        if time.monotonic() - stored > STORED_EVERY:
            counts = [metric.counts() for metric in metrics]
            write(file, _json(content | {"counted": {"batches": number, "sha256": digest, "counts": counts}}))
            stored = time.monotonic()
    content.pop("counted", None)
    content["data_sha256"] = total.hexdigest()
    table = plain.compute()
    if helped:
        table = pd.concat([table, metrics[1].compute().assign(bn_stats="matched")])
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _matched(network: Classifier, reference: Tensor) -> Matched | None:
    """The network with matched moments, if it has no BatchNorm and they can be matched."""
    if uses_batch_statistics(network) or not norm_places(network):
        return None
    try:
        return matched(network, reference)
    except ValueError as error:
        log.warning("no accuracy with matched moments: %s", error)
        return None


def _counts(metrics: Sequence[BandAccuracy], batch: tuple[Tensor, Tensor]) -> list[dict]:
    """What each metric counts on a batch alone."""
    for metric in metrics:
        metric.reset()
        metric.update(*batch)
    return [metric.counts() for metric in metrics]
