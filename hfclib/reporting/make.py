"""The report: its parts measured one by one, each stored at once, and what is read from it."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hfclib._files import locked, write
from hfclib.attacks.checks import warn_if_probabilities
from hfclib.batching import BATCH_SIZE, batch_size_of, batches, logits
from hfclib.conditions import PAPER_RADII, uses_batch_statistics
from hfclib.devices import device_of
from hfclib.frequency import nyquist
from hfclib.metrics import mean_colour
from hfclib.moments import Matched, matched, norm_places
from hfclib.reporting import answer, page
from hfclib.reporting.counting import CHANGED, Counting, data_digest, digest
from hfclib.reporting.datasets import DatasetSpec
from hfclib.reporting.figures import card
from hfclib.reporting.limits import Limit, check_limits
from hfclib.reporting.metric import Classifier, counted
from hfclib.reporting.parts import REPORT_PARTS, Subject, attack_batch
from hfclib.reporting.settings import FittedSettings, ReportSettings, plain
from hfclib.reporting.stored import SCHEMA, Report, check_same_data, read_report
from hfclib.transforms import feed_images

FRACTIONS = (0.125, 0.25, 0.5, 0.75)  # of Nyquist: the radii of images beyond 32 pixels
log = logging.getLogger(__name__)


def make_report(
    model: Callable,
    data: DatasetSpec | tuple[Tensor, Tensor] | Iterable,
    folder: str | Path = "report",
    settings: ReportSettings | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    compare: "Report | str | Path | Sequence[Report | str | Path]" = (),
    engine: Callable[[Callable, Iterable], Iterable] = map,
    **options,
) -> Report:
    """Measure a classifier and write a report; one that was stopped goes on with what is missing.

    The accuracy goes on after the images that were counted: they are read again, for data_sha256, and not classified.
    Once it is stored, all images and labels are read again at each call, and refused if one has changed since. Of the
    network its weights are compared, and its predictions for the first images.

    Args:
        model: any classifier, see `Classifier`.
        data: (images, labels), float (N, C, H, W) in [0, 1] and (N,); or batches that can be read more than once, such
            as a DataLoader, see `hfclib.batching.batches`; or a `DatasetSpec`, as `named_data` reads a folder. With
            `unlabelled=True` images or batches of them.
        folder: of the report, made if it is missing.
        settings: how to measure; None takes the defaults of `ReportSettings`.
        mean, std: that the model expects its input to be normalised by, see `Classifier`; not with a model that is one.
        compare: a report of another network on the same data, or its report.json, or several: their curves are drawn
            behind. Only the page has them. The data are read once before the work, to be compared.
        engine: applies a function to each batch of the accuracy and each frequency of the heat map, and gives the
            results in order: `map`, or what `hfclib.runs.ray.ray_map` gives, for a model on the CPU.
        options: fields of `ReportSettings`, such as `radii=[4, 8]`, in place of those in settings.
    Raises:
        TypeError, ValueError: bad data or settings, a report to compare with that is not finished, of another schema or
            of other data; or the folder has a report with other settings, of another network, or of data that have
            changed.
        OSError: a report to compare with can't be read.
    """
    settings = replace(settings or ReportSettings(), **options)
    given = [compare] if isinstance(compare, Report | str | Path) else compare
    others = [other if isinstance(other, Report) else read_report(other) for other in given]
    network, folder = Classifier.of(model, mean, std), Path(folder)
    data = DatasetSpec.of(data, unlabelled=settings.unlabelled)
    images, labels = _first(network, data.batches, settings.images)
    first = digest([images, labels])
    colour = settings.colour or data.colour
    known = _fitting(settings, images) | {"unlabelled": data.unlabelled}
    settings = settings.fitted(colour=colour or _colour(data.batches, folder, first), **known)
    feed_images(images[:1], "mean", add_mean=True, colour=settings.colour)  # refuses another number of channels
    asked = images[:BATCH_SIZE] if settings.quick else images
    scores = logits(network, asked, batch_size=batch_size_of(network, settings.batch_size))
    key = _key(network, settings, data, images, scores) | {"first_images_sha256": first}
    data_sha256 = data_digest(network, data.batches) if others else None
    own = {"key": key, "data_sha256": data_sha256, "pictures_sha256": data.pictures_sha256}
    for other in others:
        check_same_data(own, other.content)
    if data.unlabelled and not settings.quick:  # which measures no part on these images
        labels = scores.argmax(dim=1)
    subject = Subject(network, images, labels, settings, engine)
    with locked(folder / "report.lock", say=log.warning):  # where the same command runs twice, one waits
        content = _load_or_create(folder, json.loads(json.dumps(key)))
        counted_before = "accuracy" in content["parts"]
        if counted_before and (data_sha256 or data_digest(network, data.batches)) != content["data_sha256"]:
            raise ValueError(CHANGED)
        content |= {"pictures_sha256": data.pictures_sha256, "colour_given": colour is not None}
        content |= {"data_name": data.name, "classes": {str(key): name for key, name in data.classes.items()}}
        content |= {"files": list(data.files[: len(images)])}
        _tell(subject, scores, data)
        _measure(subject, data, content, folder)
        report = Report(folder, content)
        content["summary"] = answer.summary(content)
        _store(folder, content)
        write(folder / "report.html", page.html(report, images, others).encode())
        card(report).savefig(folder / "card.png")
    return report


def _fitting(settings: ReportSettings, images: Tensor) -> dict:
    """The radii, norm and eps that fit the images; ValueError if the radii don't cut them in two."""
    height, width = images.shape[-2:]
    highest = math.hypot(height // 2, width // 2)  # in DFT bins
    radii = settings.chosen_radii()
    if radii is None and min(height, width) <= 32:
        radii = [radius for radius in PAPER_RADII if radius <= highest]
    elif radii is None:
        radii = [plain(nyquist(share, images)) for share in FRACTIONS]
    if not radii or not 0 < min(radii) <= max(radii) <= highest:
        raise ValueError(f"expected radii above 0 and up to {highest:.1f} bins, got {radii}")
    check_limits(map(Limit.parse, settings.limits), radii)
    norm = math.sqrt(height * width) / 8 if settings.norm is None else settings.norm
    return {"radii": radii, "norm": norm, "eps": norm / 8 if settings.eps is None else settings.eps}


def _key(network: Classifier, settings: FittedSettings, data: DatasetSpec, images: Tensor, scores: Tensor) -> dict:
    """What a report that goes on has to share with the one in the folder; its settings are shown on the page."""
    shown: dict = {"name": settings.name, "radii": settings.radii, "mean": network.mean, "std": network.std}
    shown |= {"colour": settings.colour, "size": list(images.shape[1:]), "classes": scores.shape[1]}
    shown |= {"known_images": data.count, "first_images": len(images)}
    shown |= {name: getattr(settings, name) for name in ("grid", "norm", "eps", "steps", "seed")}
    shown |= {"skipped_images": data.skipped} if data.skipped else {}
    shown |= {name: True for name in ("quick", "unlabelled") if getattr(settings, name)}
    # Not all of a network is in its weights, such as a filter's radius. Its predictions tell such networks apart.
    modules = network, *network.modules_behind
    return {
        "settings": shown,
        "weights_sha256": digest(value for module in modules for value in module.state_dict().values()),
        "first_predictions_sha256": digest([scores.argmax(dim=1)]),
    }


def _measure(subject: Subject, data: DatasetSpec, content: dict, folder: Path) -> None:
    """Measure the parts that are missing in the content, and store each at once."""
    wanted = subject.settings.measured_parts
    measures = {part.name: part.measure for part in REPORT_PARTS}
    for number, name in enumerate(wanted, 1):
        stored = name in content["parts"]
        log.info("%d of %d: %s%s", number, len(wanted), name, " is stored" if stored else "")
        if not stored and name == "accuracy":
            _count(subject, data, content, folder)
        elif not stored:
            content["parts"][name] = measures[name](subject)
        if not stored:
            _store(folder, content)
        for table in ("accuracy", "classes") if name == "accuracy" else (name,):
            write(folder / f"{table}.csv", pd.DataFrame(content["parts"][table]).to_csv(index=False).encode())


def _count(subject: Subject, data: DatasetSpec, content: dict, folder: Path) -> None:
    """The parts "accuracy" and "classes" of the content, and data_sha256."""

    def store(counts: dict) -> None:
        _store(folder, content | {"counted": counts})

    network, settings = subject.network, subject.settings
    with_moments = None if settings.quick else _matched(network, subject.images)
    counting = Counting(network, with_moments, settings, content.get("counted", {}), store)
    content["data_sha256"] = counting.count(data, subject.engine)
    content.pop("counted", None)
    content["parts"] |= {"accuracy": counting.rows(), "classes": counting.class_rows(data.classes)}


def _store(folder: Path, content: dict) -> None:
    write(folder / "report.json", (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())  # NaN is no JSON


def _first(network: Classifier, data: Iterable, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` images and their labels, on the device of the network."""
    held: list[tuple[Tensor, Tensor]] = []
    number = 0
    for images, labels in batches(network, data):
        if held and held[0][0].shape[1:] != images.shape[1:]:
            shapes = " and ".join(str(tuple(some.shape[1:])) for some in (held[0][0], images))
            raise ValueError(f"expected images of one size, got {shapes}")
        # Copies, as in `whole_batches`.
        held.append((images[: count - number].detach().clone(), labels[: count - number].clone()))
        number += len(held[-1][0])
        if number >= count:
            break
    if number < 2:
        raise ValueError(f"expected at least two images, got {number}")
    images, labels = (torch.cat(tensors).to(device_of(network)) for tensors in zip(*held, strict=True))
    return images.float(), labels


def _colour(data: Iterable, folder: Path, first: str) -> list[float]:
    """The mean colour of the data: that of the folder's report, if that found it in data with these first images."""
    stored, measured = None, False
    with suppress(OSError, KeyError, TypeError, ValueError):  # no report, or one that `_load_or_create` names
        content = json.loads((folder / "report.json").read_bytes())
        if content["key"]["first_images_sha256"] == first and not content.get("colour_given", True):
            stored, measured = content["key"]["settings"]["colour"], "accuracy" in content["parts"]
    if stored and measured:  # all the data are then compared
        return stored
    log.info("reading the images once for their mean colour")
    colour = mean_colour(data, progress=True)
    # Images that were not counted yet may have changed. Another processor rounds the same mean in another way.
    if stored and not np.allclose(colour, stored, rtol=0, atol=1e-6):
        raise ValueError(CHANGED)
    return stored or colour


def _load_or_create(folder: Path, key: dict) -> dict:
    """The content of the report in the folder if it was begun with this key; else a new one."""
    file = folder / "report.json"
    if not file.exists():
        if taken := [path.name for path in folder.iterdir() if path.suffix in (".csv", ".html", ".png")]:
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
        raise ValueError(
            f"{folder} has a report of another {', '.join(other) or 'schema'}{hint}: choose another folder"
        )
    return content


def _tell(subject: Subject, scores: Tensor, data: DatasetSpec) -> None:
    """Log what is to be measured and how long that takes, and warn of what makes the numbers worthless."""
    settings, known = subject.settings, data.count or len(subject.images)
    log.info("radii in DFT bins: %s; mean colour: %s", settings.radii, [round(value, 3) for value in settings.colour])
    warn_if_probabilities(scores)
    labels = subject.labels[: len(scores)]
    correct = counted(int((scores.argmax(dim=1) == labels).sum()), len(labels))
    if correct["low"] <= 1 / scores.shape[1] and not settings.unlabelled:
        right = f"{correct['correct']} of the first {len(labels)} images are right, indistinguishable from chance"
        asked = "are its mean and std as it expects, its weights loaded, and the labels in its order of classes?"
        log.warning("%s: %s", right, asked)
    if len(labels) > 20 and (labels.diff() >= 0).all() and not settings.unlabelled:
        told = "are in the order of their classes, and parts of the report are about these alone"
        log.warning("the first %d images %s: give the data in one random order", len(labels), told)
    if len(subject.images) < BATCH_SIZE:
        log.info("only %d images: expect wide intervals", len(subject.images))
    if "energy" in settings.measured_parts and (fitting := attack_batch(*subject.given[:2], settings.batch_size)):
        log.info("PGD in batches of %d: about %d MB for their gradients", fitting[0], math.ceil(fitting[1]))
    each, measured = seconds_per_image(subject.network, subject.images, settings.batch_size), settings.measured_parts
    passes = known * accuracy_passes(len(settings.radii), quick=settings.quick)
    passes += len(subject.images) * sum(part.passes(settings) for part in REPORT_PARTS if part.name in measured)
    log.info("about %.1f minutes for %d images", each * passes / 60, known)


def accuracy_passes(radii: int, *, quick: bool) -> int:
    """About how many forward passes the accuracy takes for each image."""
    return 1 + 2 * radii if quick else 2 * (1 + 3 * radii)


def seconds_per_image(network: Classifier, images: Tensor, batch_size: int) -> float:
    """How long a forward pass takes, by that of up to 100 images."""
    start = time.perf_counter()
    logits(network, images[:BATCH_SIZE], batch_size=batch_size_of(network, batch_size))
    return (time.perf_counter() - start) / len(images[:BATCH_SIZE])


def _matched(network: Classifier, reference: Tensor) -> Matched | None:
    """The network with matched moments, if it has no BatchNorm and they can be matched."""
    if uses_batch_statistics(network) or not norm_places(network):
        return None
    try:
        return matched(network, reference)
    except ValueError as error:
        log.warning("no accuracy with matched moments: %s", error)
        return None
