"""What a detector finds in images and their bands: mAP, and the images on which an object is found better on a band."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from hfclib.conditions import Condition, iter_inputs
from hfclib.data import to_float
from hfclib.paper.detection.bccd import BCCD_CLASSES
from hfclib.paper.tables import decimals


class DetectorInput(NamedTuple):
    """What a detector is fed: "x" the image, "mirror" its mirror image, "lfc" or "hfc" at a radius in DFT bins.

    The feed is "raw", as the band is, or "mean", with the data set's mean colour added, which only an HFC needs.
    """

    band: str
    feed: str = "raw"
    radius: float | None = None

    def of(self, images: Tensor, colour: Tensor | None = None) -> Tensor:
        """What is fed of images (N, 3, H, W) in [0, 1]; `colour` is (3,). A band leaves [0, 1] and is not clipped."""
        if self.band == "mirror":
            return images.flip(-1)
        wanted = Condition(self.band, self.radius, self.feed)
        return next(iter_inputs(images, [wanted], () if colour is None else colour.tolist()))


WHOLE_IMAGE = DetectorInput("x")


def detector_inputs(radii: Iterable[float]) -> list[DetectorInput]:
    """The image, its mirror image, and at each radius the LFC, the HFC and the HFC with the mean colour."""
    bands = [("lfc", "raw"), ("hfc", "raw"), ("hfc", "mean")]
    return [WHOLE_IMAGE, DetectorInput("mirror")] + [DetectorInput(*band, radius) for radius in radii for band in bands]


@torch.inference_mode()
def detect(
    model: nn.Module,
    images: Tensor,
    fed: DetectorInput = WHOLE_IMAGE,
    colour: Tensor | None = None,
    *,
    ids: Sequence[int] | None = None,
) -> list[dict]:
    """What a detector finds in images, in COCO's format of results: at most 100 boxes per image, COCO's limit.

    Args:
        model: one of torchvision's detectors, in evaluation mode.
        images: (N, 3, H, W) float in [0, 1], on the model's device.
        fed: what the detector is fed of them.
        colour: (3,) the data set's mean colour, where it is added.
        ids: of the images; None counts from 0.
    Returns:
        For each box "image_id", "category_id", "score" and "bbox": left, top, width and height in pixels of the image,
        also where its mirror image is fed.
    """
    found = [one for block in fed.of(images, colour).split(8) for one in model(list(block))]
    results, width = [], images.shape[-1]
    for image_id, one in zip(range(len(found)) if ids is None else ids, found, strict=True):
        boxes, labels, scores = (one[name][:100].cpu().numpy() for name in ("boxes", "labels", "scores"))
        boxes = boxes.astype(float)
        if fed.band == "mirror":
            boxes = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
        boxes[:, 2:] -= boxes[:, :2]
        results += [
            {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
            for box, label, score in zip(boxes.round(3).tolist(), labels.tolist(), scores.tolist(), strict=True)
        ]
    return results


def coco_truth(targets: Sequence[Mapping[str, Tensor]]) -> dict:
    """Targets of `load_bccd` in COCO's format; image ids are the positions."""
    annotations = []
    for image_id, target in enumerate(targets):
        for (left, top, right, bottom), label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            box = [left, top, right - left, bottom - top]
            annotations.append({"image_id": image_id, "category_id": label, "bbox": box})
    categories = [{"id": number, "name": name} for number, name in enumerate(BCCD_CLASSES, start=1)]
    return {"images": [{"id": n} for n in range(len(targets))], "annotations": annotations, "categories": categories}


def _coco(truth: Mapping, annotations: Iterable[dict]):
    """A pycocotools index of annotations or results on the images and categories of `truth`."""
    from pycocotools.coco import COCO  # an optional dependency: only measuring needs it

    index, boxes = COCO(), [{"iscrowd": 0, "area": one["bbox"][2] * one["bbox"][3], **one} for one in annotations]
    numbered = [one | {"id": number} for number, one in enumerate(boxes, start=1)]
    index.dataset = {**truth, "annotations": numbered}
    index.createIndex()
    return index


def _average_precision(matched: np.ndarray, ignored: np.ndarray, objects: int) -> float:
    """COCO's average precision on one image: the best precision from each of 101 recalls on, averaged.

    The arrays are (thresholds, detections) bool, the highest score first: which detections have an object of their own,
    and which count neither for nor against, as those on a crowd.
    """
    values = []
    for hit, skipped in zip(matched, ignored, strict=True):
        hits = hit[~skipped].cumsum()
        precision = hits / np.arange(1, len(hits) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        place = np.searchsorted(hits / objects, np.linspace(0, 1, 101) - 1e-12)
        values.append(np.append(best, 0.0)[place].mean())
    return float(np.mean(values))


class DetectionScores(NamedTuple):
    """mAP (IoU .50 to .95) and mAP50, each in [0, 1], and the average precision per (image id, class id present)."""

    mean: float
    at_50: float
    per_image: dict[tuple[int, int], float]


def coco_score(truth: Mapping, results: Iterable[dict]) -> DetectionScores:
    """Compare detections with the objects that are there, as COCO does (pycocotools, all sizes, 100 detections).

    `truth` has "images", "annotations" and "categories" in COCO's format, and `results` COCO's format of results.
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
    for matched in evaluation.evalImgs:
        if matched is not None and (objects := int((matched["gtIgnore"] == 0).sum())):
            average = _average_precision(matched["dtMatches"] > 0, matched["dtIgnore"].astype(bool), objects)
            per_image[matched["image_id"], matched["category_id"]] = average
    means = [float(precision[part][present[part]].mean()) if present[part].any() else 0.0 for part in (slice(None), 0)]
    return DetectionScores(*means, per_image)


def better_images(image: Mapping[tuple, float], other: Mapping[tuple, float], margin: float = 0.0) -> set[int]:
    """The images on which an object is found better in the other condition; both are `DetectionScores.per_image`.

    An image counts if, for at least one class that is in it, the average precision on this image alone (IoU .50 to
    .95) is higher in the other condition than on the image itself, by more than the margin.
    """
    return {key[0] for key, value in image.items() if other[key] > value + margin + 1e-9}


def scores_table(truth: Mapping, detections: Mapping[DetectorInput, Iterable[dict]]) -> pd.DataFrame:
    """One row per condition.

    Args:
        truth: as in `coco_score`.
        detections: by condition, each read once; WHOLE_IMAGE must be among them.
    Returns:
        Columns band, feed, radius; mAP and mAP50 in [0, 1]; better and worse, the shares of all images on which an
        object is found better on the band than on the image, and the reverse; images, their number.
    """
    scores = {fed: coco_score(truth, results) for fed, results in detections.items()}
    whole, images, rows = scores[WHOLE_IMAGE].per_image, len(truth["images"]), []
    for fed, score in scores.items():
        better = len(better_images(whole, score.per_image)) / images
        worse = len(better_images(score.per_image, whole)) / images
        rows.append([*fed, score.mean, score.at_50, better, worse, images])
    return pd.DataFrame(rows, columns=[*DetectorInput._fields, "mAP", "mAP50", "better", "worse", "images"])


def stored_csv(table: pd.DataFrame) -> bytes:
    """The content of a CSV file with a `scores_table`, in which no radius is 0."""
    return table.fillna({"radius": 0}).to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()


def measure_detector(
    model: nn.Module, images: Tensor, targets: Sequence[dict], colour: Tensor, inputs: Sequence[DetectorInput]
) -> pd.DataFrame:
    """The `scores_table` of a detector in evaluation mode under conditions, one of them WHOLE_IMAGE.

    `images`, `targets` and `colour` come from `evaluation_data`.
    """
    pictures = to_float(images)
    return scores_table(coco_truth(targets), {fed: detect(model, pictures, fed, colour) for fed in inputs})


def margins_table(model: nn.Module, images: Tensor, targets: Sequence[dict], radius: float) -> pd.DataFrame:
    """The share of images with an object found better by more than a margin, on the LFC and on the mirror image."""
    truth, pictures, rows = coco_truth(targets), to_float(images), {}
    whole, lfc, mirror = (
        coco_score(truth, detect(model, pictures, fed)).per_image
        for fed in (WHOLE_IMAGE, DetectorInput("lfc", "raw", radius), DetectorInput("mirror"))
    )
    for margin in (0, 0.05, 0.1, 0.2):
        counts = (len(better_images(whole, other, margin)) for other in (lfc, mirror))
        rows[f"more than {margin:g}"] = [decimals(count / len(images), 2) for count in counts]
    columns = ["on the LFC", "on the mirror image"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("better by")
