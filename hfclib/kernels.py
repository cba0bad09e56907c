"""Smoothing the convolution kernels of a network, and measuring their smoothness and frequency response.

A kernel is one plane (k, k) of a convolution's weight (out, in, k, k); ValueError for weights of another shape.
Frequencies are in DFT bins of a picture of 32 x 32 pixels, to which the kernel is padded with zeros: in the first
layer, the same bins as the radii of images. To filter the input of a network, use `nn.Sequential(LowPass(8), model)`.
"""

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hfclib.frequency import mask, split

SIZE = 32  # pixels of the picture to which kernels are padded
Layers = Literal["first", "all"]


def convolutions(model: nn.Module, layers: Layers = "first") -> list[nn.Conv2d]:
    """Convolutions with kernels larger than 1 x 1: the first of `model.modules()`, or all; ValueError without any."""
    if layers not in ("first", "all"):
        raise ValueError(f"expected layers, first or all, got {layers!r}")
    spatial = [module for module in model.modules() if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1]
    if not spatial:
        raise ValueError("expected a model with a convolution larger than 1 x 1, got none")
    return spatial[:1] if layers == "first" else spatial


def _copied(model: nn.Module, layers: Layers) -> tuple[nn.Module, list[Tensor]]:
    """A copy of a model, and the weights of its `convolutions`, each once, to be changed in place."""
    if any("weight" not in convolution._parameters for convolution in convolutions(model, layers)):
        kinds = "parametrised, normalised or pruned ones"
        raise ValueError(f"expected weights of their own, got {kinds}: remove the parametrisation or pruning first")
    changed = copy.deepcopy(model)
    weights = [convolution.weight for convolution in convolutions(changed, layers)]
    return changed, [weight.data for weight in dict.fromkeys(weights)]


def smooth_kernels(model: nn.Module, rho: float, *, normalise: bool = False, layers: Layers = "first") -> nn.Module:
    """A copy of a model in which every weight has rho times the sum of its eight neighbours in the kernel added.

    The border of the kernel is duplicated.

    Args:
        model: any module; it is left as it is.
        rho: finite, 0 or more.
        normalise: divide by 1 + 8 rho, by which the rule enlarges a constant kernel.
        layers: "first" of `model.modules()` (paper), or "all"; kernels of 1 x 1 stay as they are.
    Raises:
        TypeError, ValueError: a bad rho or other layers, or a model without convolutions, or with computed weights
            (parametrised, normalised, pruned).
    Source: paper, section 6.2 and equation 3; the first layer only, and no normalisation, from the authors' code.
    """
    if not math.isfinite(rho) or rho < 0:
        raise ValueError(f"expected a finite rho of at least 0, got {rho!r}")
    shifts = [(down, across) for down in range(3) for across in range(3) if (down, across) != (1, 1)]
    changed, weights = _copied(model, layers)
    for weight in weights:
        height, width = weight.shape[-2:]
        padded = F.pad(weight, (1, 1, 1, 1), mode="replicate")
        around = sum(padded[..., down : down + height, across : across + width] for down, across in shifts)
        weight.copy_((weight + rho * around) / (1 + 8 * rho if normalise else 1))
    return changed


def filter_kernels(model: nn.Module, radius: float, *, layers: Layers = "first") -> nn.Module:
    """A copy of a model in which the high-frequency component is removed from every kernel.

    Each kernel is padded with zeros to 32 x 32 and split like an image; its LFC is cropped back to the kernel, which
    brings back some high frequencies.

    Args:
        radius: DFT bins, 0 or more; 0 sets the kernels to zero, 23 or more changes nothing.
        layers: as in `smooth_kernels`. Later feature maps are smaller, but the radius still counts bins of 32 x 32.
    Raises:
        TypeError, ValueError: as `smooth_kernels` for the radius, or a kernel larger than 32 x 32.
    Source: ours; the authors' blog post names the idea only.
    """
    changed, weights = _copied(model, layers)
    for weight in weights:
        height, width = weight.shape[-2:]
        weight.copy_(split(_padded(weight), radius)[0][..., :height, :width])
    return changed


def _check_weight(weight: Tensor, least: int = 1) -> Tensor:
    if weight.ndim != 4 or 0 in weight.shape or not least <= max(weight.shape[-2:]) <= SIZE:
        raise ValueError(f"expected weights (out, in, k, k) with k from {least} to {SIZE}, got {tuple(weight.shape)}")
    return weight


def _padded(weight: Tensor) -> Tensor:
    height, width = _check_weight(weight).shape[-2:]
    return F.pad(weight.detach(), (0, SIZE - width, 0, SIZE - height))


def smoothness_penalty(weight: Tensor) -> Tensor:
    """Mean squared difference of adjacent weights (out, in, k, k), k at least 2: a scalar to minimise.

    Source: ours, for the authors' blog post, which names the idea only.
    """
    return _differences(weight).square().mean()


def _differences(weight: Tensor) -> Tensor:
    """Differences of adjacent weights in the rows and columns of each kernel, (out, in, pairs)."""
    _check_weight(weight, least=2)
    return torch.cat([weight.diff(dim=-1).flatten(2), weight.diff(dim=-2).flatten(2)], dim=2)


def roughness(weight: Tensor) -> Tensor:
    """Mean absolute difference of adjacent weights of each kernel, relative to the kernel's root mean square.

    Args:
        weight: (out, in, k, k), k at least 2.
    Returns:
        (out, in), 0 or more; 0 for a constant kernel. Sizes can be compared: the mean over kernels of independent
        weights is 1.16 at 3 x 3 and 1.14 at 5 x 5 (normal), or 1.17 and 1.16 (uniform).
    Source: ours; the paper shows kernels and measures nothing (Fig. 7).
    """
    # Squares of small float16 weights are 0.
    weight = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    scale = weight.square().mean(dim=(-2, -1)).sqrt()
    return _differences(weight).abs().mean(dim=2) / torch.where(scale > 0, scale, torch.ones_like(scale))


def high_frequency_share(weight: Tensor, radius: float) -> Tensor:
    """Share of the spectral energy of each kernel (out, in, k, k) at or above a radius in DFT bins, as in `mask`.

    Returns:
        (out, in), in [0, 1]; 0 for a kernel of zeros. A single weight has the share of the high bins: .57 at r = 12.
    """
    height, width = _check_weight(weight).shape[-2:]
    high = ~torch.fft.ifftshift(mask(SIZE, SIZE, radius))
    # The energy in a set of bins is a quadratic form of the weights, computed from the spectra of single weights: the
    # spectra of all kernels of a wide layer would take gigabytes.
    single = torch.eye(height * width, dtype=torch.float64, device="cpu").view(1, -1, height, width)
    spectra = torch.fft.fft2(_padded(single))[0][:, high]
    form = (spectra @ spectra.mH).real / SIZE**2
    values = weight.detach().cpu().flatten(2).double()
    total = values.square().sum(dim=2)
    energy = (values @ form * values).sum(dim=2)
    return (energy / torch.where(total > 0, total, torch.ones_like(total))).clamp(0, 1).to(weight)


def frequency_response(weight: Tensor) -> Tensor:
    """The mean magnitude of the spectra of kernels (out, in, k, k), (32, 32) with frequency zero at [16, 16]."""
    return torch.fft.fftshift(torch.fft.fft2(_padded(weight)).abs().mean(dim=(0, 1)))
