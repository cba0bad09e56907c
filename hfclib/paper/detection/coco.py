"""The paper's own experiment: torchvision's RetinaNet R50-FPN on COCO val2017, image by image."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from hfclib._files import home, write
from hfclib.data import DataError, to_float
from hfclib.devices import best_device
from hfclib.frequency import check_radius
from hfclib.paper.detection.measure import detect, detector_inputs, scores_table, stored_csv

_ANNOTATIONS, _PICTURES = "annotations/instances_val2017.json", "val2017"
_COLOUR = torch.tensor((0.485, 0.456, 0.406))  # ImageNet's mean, which the network subtracts


def _truth(folder: Path, limit: int | None) -> dict:
    """Images, annotations and categories of the first `limit` images by id."""
    path = folder / _ANNOTATIONS
    try:
        content = json.loads(path.read_bytes())
        images = sorted(content["images"], key=lambda image: image["id"])[:limit]
        kept = {image["id"] for image in images}
        annotations = [one for one in content["annotations"] if one["image_id"] in kept]
        return {"images": images, "annotations": annotations, "categories": content["categories"]}
    except (OSError, KeyError, TypeError, ValueError) as error:
        advice = f"expected COCO's val2017 in {folder}: {_ANNOTATIONS}, and the pictures in {_PICTURES}/"
        raise DataError(f"{path} is missing or damaged ({type(error).__name__}: {error}); {advice}") from error


def _picture(path: Path) -> Tensor:
    try:
        with Image.open(path) as picture:
            pixels = np.array(picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is missing or damaged ({error}): put a sound copy there and run again") from error
    return to_float(torch.from_numpy(pixels).permute(2, 0, 1)[None])


def evaluate_coco(
    folder: Path,
    *,
    radius: float = 128.0,
    out: Path | None = None,
    model: nn.Module | None = None,
    limit: int | None = None,
) -> pd.DataFrame:
    """Measure a detector on COCO val2017: whole images, mirrored images, LFC, HFC raw and with the mean colour.

    One picture is in memory at a time. What is found in it is a file in `<out>/<hash of network and radius>`;
    called again, it goes on with the pictures that have none.

    Args:
        folder: with `annotations/instances_val2017.json` and `val2017/`.
        radius: DFT bins, on the grid of the picture as it is in its file (640 x 480 pixels, mostly), before the network
            resizes it to 800 pixels or more. The paper names r = 128 and no grid.
        out: folder for detections and `results.csv`; None is `<home>/detection/coco-r<radius>`.
        model: None is `retinanet_resnet50_fpn` with torchvision's weights COCO_V1, which PyTorch downloads once.
        limit: take the first images by id only.
    Returns:
        A table as from `scores_table`, also stored as `<out>/results.csv`.
    Raises:
        DataError, ValueError: a file is missing or damaged, and named; radius or limit is not above 0.
    Source: paper, section 7.
    """
    if check_radius(radius) == 0 or (limit is not None and limit < 1):
        raise ValueError(f"expected radius and limit above 0, got {radius!r} and {limit!r}")
    truth, device = _truth(Path(folder), limit), best_device()
    if model is None:
        from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights, retinanet_resnet50_fpn

        model = retinanet_resnet50_fpn(weights=RetinaNet_ResNet50_FPN_Weights.COCO_V1)
    model = model.to(device).eval()
    digest = hashlib.sha256(f"r = {radius:g}".encode())
    for tensor in model.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    out = out or home() / "detection" / f"coco-r{radius:g}"
    detections = out / digest.hexdigest()[:8]
    detections.mkdir(parents=True, exist_ok=True)
    inputs, files = detector_inputs([float(radius)]), []
    for image in tqdm(truth["images"], desc=f"COCO, r = {radius:g}", disable=None):
        files.append(detections / f"{image['id']}.json")
        if not files[-1].exists():
            picture = _picture(Path(folder) / _PICTURES / image["file_name"]).to(device)
            found = [detect(model, picture, fed, _COLOUR, ids=[image["id"]]) for fed in inputs]
            write(files[-1], json.dumps(found).encode())

    def found_in(condition: int) -> Iterator[dict]:
        for path in files:
            try:
                yield from json.loads(path.read_bytes())[condition]
            except ValueError as error:
                raise DataError(f"{path} is damaged ({error}): delete it and run the same command again") from error

    results = scores_table(truth, {fed: found_in(number) for number, fed in enumerate(inputs)})
    write(out / "results.csv", stored_csv(results))
    return results
