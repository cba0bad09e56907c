"""A planted signal: a grating per class, added to images at frequencies that people hardly see."""

import numpy as np
import torch
from torch import Tensor

from hfclib.data import to_float

PLANTED_RADIUS = 14  # DFT bins: no grating is nearer to frequency zero
_SEED = 0
_CLASSES = 10


def class_patterns(shape: tuple[int, int, int], amplitude: float) -> Tensor:
    """A pseudo-random pattern per class: a grating whose frequency is at least `PLANTED_RADIUS` bins from zero.

    The frequencies are drawn without repetition, also of mirrored ones, since training may flip images; the phase is
    drawn for each channel.

    Args:
        shape: (C, H, W) of the images.
        amplitude: of the gratings, in units of pixels in [0, 1].
    Returns:
        (10, C, H, W) float32 in [-amplitude, amplitude], the same for every call.
    Source: ours.
    """
    channels, height, width = shape
    rng = np.random.default_rng(_SEED)
    rows, columns = np.nonzero(np.hypot(*np.ogrid[: (height + 1) // 2, : (width + 1) // 2]) >= PLANTED_RADIUS)
    drawn = rng.choice(len(rows), _CLASSES, replace=False)
    slopes = columns[drawn] * rng.choice((-1, 1), _CLASSES)
    phases = rng.random((_CLASSES, channels, 1, 1))
    y, x = np.ogrid[:height, :width]
    cycles = rows[drawn, None, None] * y / height + slopes[:, None, None] * x / width
    return torch.from_numpy(amplitude * np.cos(2 * np.pi * (cycles[:, None] + phases))).float()


def planted(images: Tensor, labels: Tensor, amplitude: float) -> Tensor:
    """Images with the pattern of their label added.

    They are neither rounded nor clipped, and so leave [0, 1] by up to the amplitude: both would spread the pattern over
    all frequencies. Their LFC at any radius up to `PLANTED_RADIUS` is that of the images as they were.

    Args:
        images, labels: (N, C, H, W) uint8; (N,) int64, 0 to 9.
        amplitude: in units of pixels in [0, 1].
    Returns:
        (N, C, H, W) float32.
    """
    channels, height, width = images.shape[1:]
    return to_float(images) + class_patterns((channels, height, width), amplitude).to(images.device)[labels]
