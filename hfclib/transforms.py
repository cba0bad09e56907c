"""What a network is fed of a band: the band itself, or on another scale, or with another brightness."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Feed = Literal["raw", "max", "mean"]
FEEDS: tuple[Feed, ...] = get_args(Feed)
_FAINT = 1e-4  # a maximum or contrast below this is rounding noise, which a division would magnify


def rescaled(images: Tensor, how: str) -> Tensor:
    """Rescale each image by its own values.

    Args:
        images: (N, C, H, W) float, whole images or a band.
        how: "none"; "max" divides an image by its maximum; "range" maps its minimum to 0 and its maximum to 1.
    Returns:
        (N, C, H, W). An image whose maximum ("max") or contrast ("range") is below 1e-4 is not divided.
    Raises:
        ValueError: another `how`.
    Source: "max" from the authors' code; "range" is our reading of the paper's "standard pixel scale".
    """
    if how == "none":
        return images
    if how not in ("max", "range"):
        raise ValueError(f"expected how, one of none, max, range, got {how!r}")
    lowest = images.amin(dim=(1, 2, 3), keepdim=True) if how == "range" else 0.0
    height = images.amax(dim=(1, 2, 3), keepdim=True) - lowest
    return (images - lowest) / torch.where(height > _FAINT, height, torch.ones_like(height))


def feed_images(band: Tensor, feed: str, *, add_mean: bool = False, colour: Sequence[float] = ()) -> Tensor:
    """What a network is fed of a band.

    Args:
        band: (N, C, H, W) float, an LFC or HFC as `split` returns it, or whole images.
        feed: see `hfclib.conditions`.
        add_mean, colour: the band is an HFC, to which "mean" adds the colour of the data, one number per channel, such
            as `hfclib.data.MEAN`; without add_mean it adds nothing.
    Returns:
        (N, C, H, W), unclipped.
    Raises:
        ValueError: another feed, or a colour to be added that is not one number in [0, 1] per channel.
    Source: "max" from the authors' code; "mean" is ours.
    """
    if feed not in FEEDS:
        raise ValueError(f"expected feed, one of {', '.join(FEEDS)}, got {feed!r}")
    if feed == "max":
        return rescaled(band, "max")
    if feed == "mean" and add_mean:
        if len(colour) != band.shape[1]:
            raise ValueError(f"expected colour, one number per channel ({band.shape[1]}), got {len(colour)}")
        if not all(-1e-3 <= value <= 1 + 1e-3 for value in colour):  # rounding may leave [0, 1]
            raise ValueError(f"expected colour, numbers in [0, 1] as of pixels, got {list(colour)}")
        return band + band.new_tensor(colour).view(-1, 1, 1)
    return band
