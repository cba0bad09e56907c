"""hfclib: how much of an image's high-frequency component does a convolutional network read?"""

__version__ = "0.1.0"

from hfclib.data import cifar10
from hfclib.evaluation import accuracy, band_accuracy, logits
from hfclib.frequency import HighPass, LowPass, split
from hfclib.misalignment import misaligned
from hfclib.models import resnet18, resnet32
from hfclib.recipes import Recipe

__all__ = [
    "HighPass",
    "LowPass",
    "Recipe",
    "accuracy",
    "band_accuracy",
    "cifar10",
    "logits",
    "misaligned",
    "resnet18",
    "resnet32",
    "split",
]
