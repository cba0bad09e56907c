"""BCCD, 364 pictures of blood cells with boxes of three classes: read from `data/bccd`, verified and resized."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hfclib._files import data_folder, sha256
from hfclib.data import DataError

BCCD_SIZE = (640, 480)  # width and height of every picture, in pixels
BCCD_CLASSES = ("platelet", "red cell", "white cell")  # labels 1, 2, 3; torchvision keeps 0 for the background
BCCD_IMAGES = {"trainval": 292, "test": 72}
_SHA256 = {
    "images.zip": "1807ac837e40eb0503e58366be3a57605afe6f5c89554fa9c0818517c73e7c23",
    "annotations.json": "5efb1bf22a89abf9222294feb83d6a3ebc096409d9af9da736c0e43cf3a4a6b3",
}


def _verified(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    if sha256(content) != _SHA256[path.name]:
        raise DataError(f"{path} is missing or damaged (it has another SHA-256): restore it from the repository")
    return content


def load_bccd(
    split: str, *, size: tuple[int, int] = (240, 180), count: int | None = None, folder: Path | None = None
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Pictures and boxes of BCCD, resized.

    Args:
        split: "trainval" (292 pictures) or "test" (72).
        size: width and height in pixels. Pictures are resized with an antialiased bilinear filter.
        count: take the first ones only.
        folder: where the files are; None is `data/bccd`.
    Returns:
        (images, targets): uint8 (N, 3, height, width), and for each image "boxes", float32 (objects, 4), left, top,
        right and bottom in pixels of the resized image, and "labels", int64 (objects,), 1 to 3 for `BCCD_CLASSES`.
    Raises:
        DataError, ValueError: a file is missing or damaged, and named; another split.
    """
    if split not in BCCD_IMAGES:
        raise ValueError(f"expected split, trainval or test, got {split!r}")
    archive, annotations = (_verified((folder or data_folder() / "bccd") / name) for name in _SHA256)
    entries = [entry for entry in json.loads(annotations)["images"] if entry["split"] == split][:count]
    scale = torch.tensor([size[0] / BCCD_SIZE[0], size[1] / BCCD_SIZE[1]] * 2)
    images, targets = [], []
    with zipfile.ZipFile(io.BytesIO(archive)) as pictures:
        for entry in entries:
            with Image.open(io.BytesIO(pictures.read(entry["file"])), formats=["JPEG"]) as picture:
                small = picture.convert("RGB").resize(size, Image.Resampling.BILINEAR)
            images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
            boxes = torch.tensor(entry["boxes"], dtype=torch.float32) * scale
            targets.append({"boxes": boxes, "labels": torch.tensor(entry["labels"]) + 1})
    return torch.stack(images), targets
