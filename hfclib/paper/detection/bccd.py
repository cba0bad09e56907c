"""BCCD, 364 pictures of blood cells with boxes of three classes: read from `data/bccd`, verified, and made smaller."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hfclib.data import DataError, data_folder
from hfclib.files import sha256

FILE_SIZE = (640, 480)  # width and height of every picture, in pixels
SHA256 = {
    "images.zip": "1807ac837e40eb0503e58366be3a57605afe6f5c89554fa9c0818517c73e7c23",
    "annotations.json": "5efb1bf22a89abf9222294feb83d6a3ebc096409d9af9da736c0e43cf3a4a6b3",
}
CLASSES = ("platelet", "red cell", "white cell")  # labels 1, 2, 3; torchvision keeps 0 for the background
IMAGES = {"trainval": 292, "test": 72}


def _verified(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read ({error}): restore data/bccd from the repository") from error
    if sha256(content) != SHA256[path.name]:
        raise DataError(f"{path} is damaged (its SHA-256 is not the published one): restore it from the repository")
    return content


def load(
    split: str, *, size: tuple[int, int] = (240, 180), count: int | None = None, folder: Path | None = None
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Pictures and boxes of BCCD, resized.

    Args:
        split: "trainval" (292 pictures) or "test" (72).
        size: width and height in pixels, at most 640 and 480. Pictures are resized with an antialiased bilinear filter.
        count: take the first ones only.
        folder: where the files are; None is `data/bccd`.
    Returns:
        (images, targets): uint8 (N, 3, height, width), and for each image "boxes", float32 (objects, 4), left, top,
        right and bottom in pixels of the resized image, and "labels", int64 (objects,), 1 to 3 for `CLASSES`.
    Raises:
        DataError: a file is missing or damaged; the message names it and says what to do.
        ValueError: another split, or a size out of range.
    """
    if split not in IMAGES:
        raise ValueError(f"expected split, trainval or test, got {split!r}")
    if not all(1 <= side <= most for side, most in zip(size, FILE_SIZE, strict=True)):
        raise ValueError(f"expected size, (width, height) from (1, 1) to {FILE_SIZE}, got {size}")
    folder = folder or data_folder() / "bccd"
    archive, annotations = (_verified(folder / name) for name in SHA256)
    entries = [entry for entry in json.loads(annotations)["images"] if entry["split"] == split][:count]
    scale = torch.tensor([size[0] / FILE_SIZE[0], size[1] / FILE_SIZE[1]] * 2)
    images, targets = [], []
    with zipfile.ZipFile(io.BytesIO(archive)) as pictures:
        for entry in entries:
            with Image.open(io.BytesIO(pictures.read(entry["file"])), formats=["JPEG"]) as picture:
                small = picture.convert("RGB").resize(size, Image.Resampling.BILINEAR)
            images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
            boxes = torch.tensor(entry["boxes"], dtype=torch.float32) * scale
            targets.append({"boxes": boxes, "labels": torch.tensor(entry["labels"]) + 1})
    return torch.stack(images), targets


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.float() / 255


def mean_colour(images: Tensor) -> Tensor:
    """The mean of each channel over all pixels of images (N, 3, H, W) uint8, as (3,) in [0, 1]."""
    return (images.double().mean(dim=(0, 2, 3)) / 255).float()
