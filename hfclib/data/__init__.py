"""Data sets: where they come from, their checks, and the parts that come with the code."""

from hfclib.data.cifar import CIFAR10, CLASSES, MEAN, TEST_IMAGES, cifar10, embedded
from hfclib.data.mnist import FASHION_MNIST, MNIST
from hfclib.data.sources import DataError, DataSet, to_float

DATA_SETS: dict[str, DataSet] = {one.name: one for one in (CIFAR10, MNIST, FASHION_MNIST)}

__all__ = ["CLASSES", "DATA_SETS", "MEAN", "TEST_IMAGES", "DataError", "DataSet", "cifar10", "embedded", "to_float"]
