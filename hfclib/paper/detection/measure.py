"""What a detector finds in images and their bands: mAP, and the images on which an object is found better on a band."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hfclib.frequency import split
from hfclib.paper.detection.bccd import CLASSES, to_float


class Condition(NamedTuple):
    """What a detector is fed: "x" the image, "mirror" its mirror image, "lfc" or "hfc" at a radius in DFT bins.

    The feed is "raw", as the band is, or "mean", with the data set's mean colour added, which only an HFC needs.
    """

    band: str
    feed: str = "raw"
    radius: float = 0.0


BANDS = (("lfc", "raw"), ("hfc", "raw"), ("hfc", "mean"))
COLUMNS = ["band", "feed", "radius", "mAP", "mAP50", "better", "worse", "images"]


def conditions(radii: Iterable[float]) -> list[Condition]:
    """All conditions at these radii; the image comes first."""
    return [Condition("x"), Condition("mirror")] + [Condition(*band, radius) for radius in radii for band in BANDS]


def fed(images: Tensor, condition: Condition, colour: Tensor) -> Tensor:
    """Images as a detector is fed them.

    Args:
        images: (N, 3, H, W) float in [0, 1].
        condition: which band, and how.
        colour: (3,) the data set's mean colour.
    Returns:
        Like images. A band leaves [0, 1] and is not clipped.
    """
    if condition.band == "x":
        return images
    if condition.band == "mirror":
        return images.flip(-1)
    lfc, hfc = split(images, condition.radius)
    if condition.band == "lfc":
        return lfc
    return hfc + colour.to(images).view(3, 1, 1) if condition.feed == "mean" else hfc


@torch.inference_mode()
def detect(model: nn.Module, images: Tensor, *, batch_size: int = 8) -> list[dict[str, np.ndarray]]:
    """What a detector finds in images.

    Args:
        model: one of torchvision's detectors, in evaluation mode.
        images: (N, 3, H, W) float, on the model's device.
        batch_size: images per call of the model.
    Returns:
        For each image "boxes" (n, 4), left, top, right and bottom in pixels, "scores" (n,), the highest first, and
        "labels" (n,).
    """
    found = [one for block in images.split(batch_size) for one in model(list(block))]
    return [{name: one[name].cpu().numpy() for name in ("boxes", "scores", "labels")} for one in found]


def detect_in(model: nn.Module, images: Tensor, condition: Condition, colour: Tensor) -> list[dict[str, np.ndarray]]:
    """What a detector finds in images (N, 3, H, W) under a condition; boxes are places in the image as it is."""
    found = detect(model, fed(images, condition, colour))
    if condition.band == "mirror":
        width = images.shape[-1]
        for one in found:
            one["boxes"] = one["boxes"][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
    return found


def results_of(found: Sequence[Mapping[str, np.ndarray]], ids: Sequence[int] | None = None) -> list[dict]:
    """Detections in COCO's format of results, at most 100 per image, COCO's limit.

    Args:
        found: from `detect`.
        ids: of the images; None counts from 0.
    """
    results = []
    for image_id, one in zip(range(len(found)) if ids is None else ids, found, strict=True):
        corners = one["boxes"][:100].astype(float)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).round(3).tolist()
        results += [
            {"image_id": image_id, "category_id": int(label), "bbox": box, "score": float(score)}
            for box, label, score in zip(boxes, one["labels"], one["scores"], strict=False)
        ]
    return results


def truth_of(targets: Sequence[Mapping[str, Tensor]]) -> dict:
    """Targets of `bccd.load` in COCO's format; image ids are the positions."""
    annotations = []
    for image_id, target in enumerate(targets):
        for (left, top, right, bottom), label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            box = [left, top, right - left, bottom - top]
            annotations.append({"image_id": image_id, "category_id": label, "bbox": box, "area": box[2] * box[3]})
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(CLASSES)]
    return {"images": [{"id": n} for n in range(len(targets))], "annotations": annotations, "categories": categories}


def _coco(truth: Mapping, annotations: Iterable[dict]):
    """A pycocotools index of annotations or results on the images and categories of `truth`."""
    from pycocotools.coco import COCO  # an optional dependency: only measuring needs it

    index = COCO()
    numbered = [
        {"iscrowd": 0, "area": one["bbox"][2] * one["bbox"][3], **one, "id": n}
        for n, one in enumerate(annotations, start=1)
    ]
    index.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": numbered}
    index.createIndex()
    return index


def _average_precision(matched: np.ndarray, ignored: np.ndarray, objects: int) -> float:
    """COCO's average precision on one image: the best precision from each of 101 recalls on, averaged.

    Args:
        matched, ignored: (thresholds, detections) bool, the surest first: which detections have an object of their own,
            and which count neither for nor against, as those on a crowd.
        objects: how many there are, 1 or more.
    """
    values = []
    for hit, skipped in zip(matched, ignored, strict=True):
        hits = hit[~skipped].cumsum()
        precision = hits / np.arange(1, len(hits) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        place = np.searchsorted(hits / objects, np.linspace(0, 1, 101) - 1e-12)
        values.append(np.append(best, 0.0)[place].mean())
    return float(np.mean(values))


class Scores(NamedTuple):
    """mAP (IoU .50 to .95) and mAP50, each in [0, 1], and the average precision per (image id, class id present)."""

    mean: float
    at_50: float
    per_image: dict[tuple[int, int], float]


def score(truth: Mapping, results: Iterable[dict]) -> Scores:
    """Compare detections with the objects that are there, as COCO does (pycocotools, all sizes, 100 detections).

    Args:
        truth: "images", "annotations" and "categories" in COCO's format.
        results: detections in COCO's format of results.
    """
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it reports each step
        evaluation = COCOeval(_coco(truth, truth["annotations"]), _coco(truth, results), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (10 thresholds, 101 recalls, classes, 1, 1); -1 for a class without any
    present = precision[..., 0, 0] > -1
    per_image = {}
    for one in evaluation.evalImgs:
        if one is not None and (objects := int((one["gtIgnore"] == 0).sum())):
            average = _average_precision(one["dtMatches"] > 0, one["dtIgnore"].astype(bool), objects)
            per_image[one["image_id"], one["category_id"]] = average
    means = [float(precision[part][present[part]].mean()) if present[part].any() else 0.0 for part in (slice(None), 0)]
    return Scores(*means, per_image)


def better_images(image: Mapping[tuple, float], other: Mapping[tuple, float], margin: float = 0.0) -> set[int]:
    """The images on which an object is found better in the other condition.

    An image counts if, for at least one class that is in it, the average precision on this image alone (IoU .50 to
    .95) is higher in the other condition than on the image itself, by more than the margin.

    Args:
        image, other: `Scores.per_image` of the two conditions.
        margin: in average precision, 0 or more.
    """
    return {key[0] for key, value in image.items() if other[key] > value + margin + 1e-9}


def table(truth: Mapping, found: Mapping[Condition, Iterable[dict]]) -> pd.DataFrame:
    """One row per condition, with COLUMNS.

    Args:
        truth: as in `score`.
        found: detections by condition, each read once; Condition("x") must be among them.
    Returns:
        mAP and mAP50 in [0, 1]; "better" and "worse", the shares of all images on which an object is found better on
        the band than on the image, and better on the image than on the band.
    """
    scores = {condition: score(truth, results) for condition, results in found.items()}
    whole, images, rows = scores[Condition("x")].per_image, len(truth["images"]), []
    for condition, one in scores.items():
        better = len(better_images(whole, one.per_image)) / images
        worse = len(better_images(one.per_image, whole)) / images
        rows.append([*condition, one.mean, one.at_50, better, worse, images])
    return pd.DataFrame(rows, columns=COLUMNS)


def measure(
    model: nn.Module,
    images: Tensor,
    targets: Sequence[Mapping[str, Tensor]],
    colour: Tensor,
    asked: Sequence[Condition],
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure a detector under conditions.

    Args:
        model: in evaluation mode.
        images: (N, 3, H, W) uint8.
        targets: from `bccd.load`.
        colour: (3,) the training images' mean colour.
        asked: the conditions; Condition("x") must be among them.
        progress: show a bar.
    Returns:
        As `table`.
    """
    found: dict[Condition, list[dict]] = {}
    for condition in tqdm(asked, desc="measuring", disable=not progress):
        found[condition] = results_of(detect_in(model, to_float(images), condition, colour))
    return table(truth_of(targets), found)
