"""Data sets: where they come from, their checks, and the parts that come with the code."""

from hfclib.data.cifar import CLASSES, MEAN, TEST_IMAGES, DataError, cifar10, embedded, fetch, to_float

__all__ = ["CLASSES", "MEAN", "TEST_IMAGES", "DataError", "cifar10", "embedded", "fetch", "to_float"]
