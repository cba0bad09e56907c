"""A planted signal: a pattern per class, added to images at frequencies that people hardly see."""

import numpy as np
import torch
from torch import Tensor

from hfclib.data import to_float
from hfclib.frequency import split

PLANTED_RADIUS = 14  # DFT bins: the patterns have nothing below
_SEED = 0


def class_patterns(shape: tuple[int, int, int], amplitude: float, classes: int = 10) -> Tensor:
    """A fixed pseudo-random pattern per class, whose spectrum is zero within `PLANTED_RADIUS`.

    Args:
        shape: (C, H, W) of the images.
        amplitude: the largest absolute value of each pattern, in units of pixels in [0, 1].
    Returns:
        (classes, C, H, W) float32, the same for every call.
    Source: ours.
    """
    noise = torch.from_numpy(np.random.default_rng(_SEED).standard_normal((classes, *shape)))
    _, patterns = split(noise, PLANTED_RADIUS)
    return (amplitude * patterns / patterns.abs().amax(dim=(1, 2, 3), keepdim=True)).float()


def planted(images: Tensor, labels: Tensor, amplitude: float) -> Tensor:
    """Images with the pattern of their class added.

    They are not clipped, and so leave [0, 1] by up to the amplitude: clipping would spread the pattern over all
    frequencies. Their LFC at any radius up to `PLANTED_RADIUS` is that of the images as they were, up to rounding.

    Args:
        images, labels: (N, C, H, W) uint8; (N,) int64, 0 to 9.
        amplitude: in units of pixels in [0, 1]; 0 adds nothing.
    Returns:
        (N, C, H, W) float32.
    """
    patterns = class_patterns(tuple(images.shape[1:]), amplitude).to(images.device)
    return to_float(images) + patterns[labels]
