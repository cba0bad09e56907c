"""The paper's own experiment: torchvision's RetinaNet R50-FPN on COCO val2017, image by image, resumable."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights, retinanet_resnet50_fpn
from tqdm import tqdm

from hfclib.data import DataError, home
from hfclib.devices import best_device
from hfclib.files import sha256, write
from hfclib.frequency import check_radius
from hfclib.paper.detection import measure
from hfclib.paper.detection.bccd import to_float

ANNOTATIONS, PICTURES = "annotations/instances_val2017.json", "val2017"
COLOUR = (0.485, 0.456, 0.406)  # ImageNet's mean, which the network subtracts


def _truth(folder: Path, limit: int | None) -> dict:
    """Images, boxes and classes of the annotations, without the outlines, of the first `limit` images by id."""
    path = folder / ANNOTATIONS
    try:
        content = json.loads(path.read_bytes())
        images = sorted(({"id": one["id"], "file_name": one["file_name"]} for one in content["images"]), key=_id)[
            :limit
        ]
        kept = {one["id"] for one in images}
        names = ("image_id", "category_id", "bbox", "area", "iscrowd")
        boxes = [{name: one[name] for name in names} for one in content["annotations"] if one["image_id"] in kept]
        categories = [{"id": one["id"], "name": one["name"]} for one in content["categories"]]
    except (OSError, KeyError, TypeError, ValueError) as error:
        advice = f"expected COCO's val2017 there: {ANNOTATIONS}, and the pictures in {PICTURES}/"
        raise DataError(f"{path} is missing or damaged ({type(error).__name__}: {error}); {advice}") from error
    return {"images": images, "annotations": boxes, "categories": categories}


def _id(image: dict) -> int:
    return image["id"]


def _picture(path: Path) -> Tensor:
    try:
        with Image.open(path) as picture:
            pixels = np.array(picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is missing or damaged ({error}): put a sound copy there and run again") from error
    return to_float(torch.from_numpy(pixels).permute(2, 0, 1)[None])


def _line(content: dict) -> str:
    text = json.dumps(content)
    return f"{sha256(text.encode())[:16]} {text}\n"


def _records(path: Path) -> Iterator[tuple[dict, int]]:
    """The records of a file of detections, each with the place where it ends; an unfinished last one is left out."""
    end = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return  # the process was killed while it wrote this line
            seal, text = line[:16], line[17:-1]
            if seal != sha256(text).encode()[:16]:
                raise DataError(f"{path} is damaged in line {number}: delete it and run the same command again")
            end += len(line)
            yield json.loads(text), end


def _begin(path: Path, header: dict) -> int:
    """How many images are done in a file of detections; it is begun if it does not exist, and its torn end is cut."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, _line(header).encode())
    done, end = -1, 0
    for record, after in _records(path):
        if done == -1 and record != header:
            raise DataError(f"{path} holds detections of another radius, network or data set: delete it, or set out")
        done, end = done + 1, after
    if done == -1:
        raise DataError(f"{path} is damaged (it has no first line): delete it and run the same command again")
    with open(path, "r+b") as file:
        file.truncate(end)
    return done


def _results(path: Path, condition: int) -> Iterator[dict]:
    for number, (record, _) in enumerate(_records(path)):
        if number > 0:  # the first is the header
            yield from record[str(condition)]


def evaluate_coco(
    folder: Path,
    *,
    radius: float = 128.0,
    out: Path | None = None,
    model: nn.Module | None = None,
    device: torch.device | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure a detector on COCO val2017: whole images, mirrored images, LFC, HFC raw and with the mean colour.

    One picture is in memory at a time. What is found in it is appended to `<out>/detections.jsonl`; called again, it
    goes on there. At the end the detections of one condition at a time are compared with the objects.

    Args:
        folder: with `annotations/instances_val2017.json` and `val2017/`.
        radius: DFT bins, on the grid of the picture as it is in its file (640 x 480 pixels, mostly), before the network
            resizes it to 800 pixels or more. The paper names r = 128 and no grid.
        out: folder for detections and `results.csv`; None is `<home>/detection/coco-r<radius>`.
        model: None is `retinanet_resnet50_fpn` with torchvision's weights COCO_V1; PyTorch downloads them once, into
            the folder that the environment variable TORCH_HOME names.
        device: None finds the best.
        limit: take the first images by id only.
        progress: show a bar.
    Returns:
        A table with `measure.COLUMNS`, also stored as `<out>/results.csv`.
    Raises:
        DataError: a file is missing or damaged, or `out` holds detections of something else; the message names it.
        TypeError, ValueError: a bad radius or limit.
    Source: paper, section 7.
    """
    if check_radius(radius) == 0 or (limit is not None and (type(limit) is not int or limit < 1)):
        raise ValueError(f"expected radius above 0 and limit, a whole number of at least 1, got {radius!r}, {limit!r}")
    truth, device = _truth(Path(folder), limit), device or best_device()
    model = model or retinanet_resnet50_fpn(weights=RetinaNet_ResNet50_FPN_Weights.COCO_V1)
    model = model.to(device).eval()
    out = out or home() / "detection" / f"coco-r{radius:g}"
    asked, path = measure.conditions([float(radius)]), out / "detections.jsonl"
    digest = hashlib.sha256(json.dumps(truth).encode())
    for tensor in model.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    done = _begin(path, {"radius": float(radius), "data and network": digest.hexdigest()})
    with open(path, "a") as file:
        for image in tqdm(truth["images"][done:], desc=f"COCO, r = {radius:g}", disable=not progress):
            picture = _picture(Path(folder) / PICTURES / image["file_name"]).to(device)
            found = {}
            for number, condition in enumerate(asked):
                one = measure.detect_in(model, picture, condition, torch.tensor(COLOUR))
                found[str(number)] = measure.results_of(one, [image["id"]])
            file.write(_line(found))
            file.flush()
    results = measure.table(truth, {condition: _results(path, number) for number, condition in enumerate(asked)})
    write(out / "results.csv", results.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())
    return results
