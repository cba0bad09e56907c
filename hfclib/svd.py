"""Splitting images by a truncated singular value decomposition, for comparison with the Fourier split."""

from collections.abc import Iterable

import torch
from torch import Tensor

from hfclib.frequency import split


def svd_split(
    images: Tensor, radius: float, *, inclusive: bool = False, factors: tuple[Tensor, Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Split images by a truncated singular value decomposition that keeps about as much energy as the LFC at a radius.

    Each channel is a matrix. Of each image the same number of largest singular values, its rank, is kept in every
    channel: that number, 0 to min(H, W), with which the sum of squared pixels comes nearest to that of its LFC.

    Args:
        images: (N, C, H, W) float, any range.
        radius: DFT bins, 0 or more.
        inclusive: <= in place of < in the LFC.
        factors: `torch.linalg.svd(images, full_matrices=False)`, where one decomposition serves several radii.
    Returns:
        (low, high, rank): low + high equals images up to rounding; rank is (N,) int64.
    Raises:
        TypeError, ValueError: as `split`.
    Source: paper, section 8, which does not say how many singular values it kept; matching the energy is ours.
    """
    wanted = split(images, radius, inclusive=inclusive)[0].square().sum(dim=(1, 2, 3))
    single = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images  # PyTorch has no half SVD
    u, s, vh = factors or torch.linalg.svd(single, full_matrices=False)
    kept = torch.cat([torch.zeros_like(wanted)[:, None], s.square().sum(dim=1).cumsum(dim=1)], dim=1)
    rank = (kept - wanted[:, None]).abs().argmin(dim=1)
    chosen = torch.arange(s.shape[-1], device=s.device) < rank[:, None, None]
    low = ((u * (s * chosen)[..., None, :]) @ vh).to(images.dtype)
    return low, images - low, rank


def mean_ranks(images: Tensor, radii: Iterable[float]) -> dict[float, float]:
    """The mean rank over images (N, C, H, W) that `svd_split` keeps at each radius, to a tenth."""
    factors = torch.linalg.svd(images, full_matrices=False)
    ranks = {radius: svd_split(images, radius, factors=factors)[2].double() for radius in radii}
    return {radius: round(rank.mean().item(), 1) for radius, rank in ranks.items()}
