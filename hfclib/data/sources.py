"""What all data sets share: their sources asked in turn, checksums, embedded pictures, downloads and refusals.

Every source is decoded to two uint8 arrays, images NHWC and labels, which must have the data set's SHA-256.
"""

import contextlib
import hashlib
import io
import logging
import math
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from hfclib._files import data_folder, home, homes, locked

log = logging.getLogger(__name__)
Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Arrays = tuple[np.ndarray, np.ndarray]  # images NHWC, labels, both uint8
Verified = tuple[np.ndarray, np.ndarray, str]  # and the source
Get = Callable[[str, Path, bool], None]
TIMEOUT, RETRIES = 20, 2  # seconds without an answer after which a download has failed; how often it is tried again
EMBEDDED = 500  # training images of each class in the repository


class DataError(RuntimeError):
    """No source has the data, or a file is damaged; the message says which, and what to do."""


class Unavailable(DataError):
    """One source does not have the data; the message says why, and the next source is tried."""


@dataclass(frozen=True)
class Source:
    """One place of a data set.

    Attributes:
        what: it is, in words, with its address or the command that makes its file.
        files: the files of a split, or one archive of both, by name.
        decode: from their paths and the split to arrays.
        get: fetches a file that is missing: from (name, folder, whether to show a bar), once no source has it already.
        folder: where they are; None is the data set's own folder.
    """

    what: str
    files: Callable[[Split], Sequence[str]]
    decode: Callable[[Sequence[Path], Split], Arrays]
    get: Get | None = None
    folder: Path | None = None


@dataclass(frozen=True, eq=False)  # hashed by identity, for the cache of decoded copies
class DataSet:
    """A set of labelled images with ten classes: what they are, and how they are obtained.

    Attributes:
        name: of its own folder, and of its files in the repository.
        title: as it is written in text.
        classes: their names.
        mean: of the training images in [0, 1], one number per channel.
        side: height and width in pixels.
        checksums: SHA-256 of the uint8 bytes in C order: images (N, side, side, C) and labels (N,), of "train", "test"
            and "train5000", the training images in the repository.
        sources: asked in turn after the files in the repository.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    side: int
    checksums: Mapping[str, str]
    sources: Sequence[Source]

    @property
    def radii(self) -> tuple[int, ...]:
        """Every whole radius in DFT bins at which an image has two parts."""
        return tuple(range(1, math.ceil(math.sqrt(2) * self.side / 2)))

    @property
    def folder(self) -> Path:
        """Where its archives are put."""
        return home() / self.name

    def load(self, split: Split, *, progress: bool = True) -> tuple[Tensor, Tensor]:
        """One split from the first source that has it; arguments and errors as in `cifar10`.

        Returns:
            images, uint8 (N, C, side, side) contiguous, 0 to 255; labels, int64 (N,), 0 to 9 as in `classes`.
        """
        return _tensors(*self._verified_split(split, progress))

    def embedded(self, split: Split) -> tuple[Tensor, Tensor]:
        """The images in the repository; an installed package, which has no copy, takes the same ones from `load`.

        These are all test images, or 5,000 training images: the first 500 of each class, in file order. Returns and
        raises as `load`.
        """
        try:
            return _tensors(*_decoded_copy(self, "train5000" if split == "train" else split, data_folder()))
        except Unavailable:
            images, labels, origin = self._verified_split(split, progress=True)
        if split == "train":
            first = [np.flatnonzero(labels == number)[:EMBEDDED] for number in range(len(self.classes))]
            first = np.sort(np.concatenate(first))
            images, labels = self._check("train5000", images[first], labels[first])
        return _tensors(images, labels, origin)

    def fetch(self, progress: bool = True) -> dict[str, str]:
        """Make sure that both full splits are here and sound, and say where their images and labels came from."""
        origins = {split: self._verified_split(split, progress)[2] for split in SPLITS}
        return {f"{split} {what}": origin for split, origin in origins.items() for what in ("images", "labels")}

    def _check(self, part: str, images: np.ndarray, labels: np.ndarray) -> Arrays:
        for what, array in (f"{part} images", images), (f"{part} labels", labels):
            checksum = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
            if checksum != self.checksums[what]:
                expected = f"{what}: expected SHA-256 {self.checksums[what]}"
                raise ValueError(f"{expected}, got {checksum} for {array.dtype} {array.shape}")
        return images, labels

    def _from_source(self, source: Source, split: Split, get: Get | None = None, progress: bool = False) -> Verified:
        names = source.files(split)
        kept = (place / self.name for place in homes())
        whole = (folder for folder in kept if all((folder / name).exists() for name in names))
        folder = source.folder or next(whole, self.folder)
        if get:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with locked(folder / "download.lock", say=log.warning):  # of the workers of a sweep one downloads
                    for name in names:
                        if not (folder / name).exists():
                            get(name, folder, progress)
            except Exception as error:  # whatever went wrong is why this source is not available
                said = (getattr(error, "stderr", None) or b"").decode(errors="replace").split()
                raise Unavailable(" ".join([str(error), *said])[:600]) from error
        paths = [folder / name for name in names]
        with reading(*paths):
            return *self._check(split, *source.decode(paths, split)), ", ".join(names)

    def _verified_split(self, split: Split, progress: bool) -> Verified:
        if split not in SPLITS:
            raise ValueError(f"expected split, one of {', '.join(SPLITS)}, got {split!r}")
        asked = {"embedded copy (not of all training images)": partial(_decoded_copy, self, split, data_folder())}
        for source in self.sources:  # what is there already, before anything is fetched
            asked[f"{source.what}, here already"] = partial(self._from_source, source, split)
        asked |= {
            source.what: partial(self._from_source, source, split, source.get, progress)
            for source in self.sources
            if source.get
        }
        answers = []
        for what, ask in asked.items():
            try:
                return ask()
            except Unavailable as answer:
                answers.append(f"- {what}: {answer}")
        advice = f"By hand: put the files of one of these into {self.folder}, which HFCLIB_HOME can move."
        raise DataError("\n".join([f"no source has {self.title} {split}. Tried:", *answers, advice]))


def to_float(images: Tensor) -> Tensor:
    """Scale uint8 images of any shape to float32 in [0, 1]; ValueError for another dtype."""
    if images.dtype != torch.uint8:
        raise ValueError(f"expected uint8 images, got {images.dtype}")
    return images.to(torch.float32).div_(255)


def _tensors(images: np.ndarray, labels: np.ndarray, _: str) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels.astype(np.int64))


@contextlib.contextmanager
def reading(*paths: Path) -> Iterator[None]:
    """A context in which an error says that the files are damaged, or missing, and what to do."""
    listed = ", ".join(map(str, paths))
    try:
        yield
    except FileNotFoundError as error:
        raise Unavailable(f"{listed} is missing") from error
    except Exception as error:  # the decoders raise many kinds of errors on bad bytes
        what = f"{listed} is truncated, corrupt or the wrong file ({type(error).__name__}: {error}). It was not used."
        raise DataError(f"{what} Remove it or put a sound copy in its place, as data/README.md describes.") from error


def picture(data: bytes, kind: str) -> np.ndarray:
    """Pixels (H, W, 3), uint8, of an encoded picture, which must be of that kind."""
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
        return np.asarray(image.convert("RGB"))


def members(path: Path, names: Sequence[str]) -> list[bytes]:
    """The contents of the named members of a .tar.gz; nothing is unpacked to disk."""
    contents = {}
    with tarfile.open(path, "r:gz") as archive:  # in file order: seeking back in gzip would decode it again
        for member in archive:
            if member.name in names and (file := archive.extractfile(member)):
                contents[member.name] = file.read()
    return [contents[name] for name in names]


@lru_cache(maxsize=6)  # decoded and checked once per process: every run of a sweep asks for them
def _decoded_copy(data: DataSet, part: str, folder: Path) -> Verified:
    path, labels_path = (folder / f"{data.name}-{part}{end}" for end in (".webp", "-labels.bin"))
    side, channels = data.side, len(data.mean)
    with reading(path, labels_path):
        tiles = picture(path.read_bytes(), "WEBP")[..., :channels].reshape(-1, side, 100, side, channels)  # 100 per row
        images = tiles.swapaxes(1, 2).reshape(-1, side, side, channels)
        labels = np.frombuffer(labels_path.read_bytes(), np.uint8)
        return *data._check(part, images, labels), f"embedded copy ({path})"


def download(address: str, md5: Mapping[str, str], name: str, folder: Path, progress: bool) -> None:
    """Put the file `name` at an address, which ends with a slash, into `folder`, if its MD5 is right."""
    import pooch  # takes a tenth of a second

    pooch.get_logger().setLevel("ERROR")
    source = pooch.create(folder, address, registry={name: f"md5:{md5[name]}"}, retry_if_failed=RETRIES)
    source.fetch(name, downloader=pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT))


def npm_pack(package: str, name: str, folder: Path, progress: bool) -> None:
    """Put the archive `name` of an npm package into `folder`, by the command npm."""
    options = [f"--fetch-timeout={1000 * TIMEOUT}", f"--fetch-retries={RETRIES}"]
    call = [shutil.which("npm") or "npm", "pack", package, *options]
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="unfinished-") as unfinished,
        tqdm(desc=f"npm pack {package}", bar_format="{desc} ...", disable=not progress),
    ):
        subprocess.run(call, cwd=unfinished, stdin=subprocess.DEVNULL, capture_output=True, timeout=1800, check=True)
        os.replace(Path(unfinished) / name, folder / name)
