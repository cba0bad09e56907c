"""Splitting images into a low- and a high-frequency component at a radius in the centred DFT plane."""

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from hfclib._radii import check_cut, check_cuts, check_radius

_BLOCK = 2**17  # pixels of a channel transformed at once on a CPU: so many fit into its cache


def each_radius(radii: float | Iterable[float]) -> list[float]:
    """One or several radii in DFT bins as numbers of Python, also those of NumPy, pandas and PyTorch.

    Raises:
        TypeError, ValueError: as `check_cut`; or none, or one twice.
    """
    some = radii if np.iterable(radii) else [radii]
    numbers = [radius.item() if isinstance(radius, np.generic | np.ndarray | Tensor) else radius for radius in some]
    check_cuts(numbers)
    if not numbers:
        raise ValueError("expected one radius or more, got none")
    return numbers


def nyquist(share: float, images: Tensor | int) -> float:
    """The radius in DFT bins that is a share of the Nyquist frequency: `nyquist(0.25, 224)` is 28.

    Args:
        share: in [0, 1]; 1 is the Nyquist frequency itself, half of the side.
        images: (..., H, W), of which the shorter side counts, or a side in pixels.
    Raises:
        TypeError, ValueError: share is no number in [0, 1], or a side is no whole number of at least 1.
    """
    side = min(images.shape[-2:]) if isinstance(images, Tensor) else operator.index(images)
    if side < 1:
        raise ValueError(f"expected images, or a side of at least 1 pixel, got {side}")
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share of the Nyquist frequency in [0, 1], got {share!r}")
    return float(share) * side / 2


def mask(height: int, width: int, radius: float, *, inclusive: bool = False) -> Tensor:
    """Which DFT bins are low: boolean (height, width), with frequency zero at [height // 2, width // 2]; see `split`.

    Source: paper, section 3; strict "<" is what the authors' images show, the text says "<=".
    """
    radius = min(check_radius(radius), float(height + width))
    # Squared distances are whole numbers: those below a limit are low. Python's root is correctly rounded, so a radius
    # of math.sqrt(2) equals the distance of bins (1, 1). PyTorch's root is not, on some processors.
    beyond = operator.gt if inclusive else operator.ge
    limit = next(n for n in itertools.count(max(0, round(radius**2) - 1)) if beyond(math.sqrt(n), radius))
    rows, columns = (torch.arange(-(side // 2), (side + 1) // 2, device="cpu") for side in (height, width))
    return rows[:, None].square() + columns.square() < limit


def _low_bins(height: int, width: int, radius: float, inclusive: bool, dtype: torch.dtype) -> Tensor:
    """0 or 1 for the real and imaginary part of each bin of `rfft2`."""
    low = torch.fft.ifftshift(mask(height, width, radius, inclusive=inclusive))[:, : width // 2 + 1]
    return low.to(dtype)[..., None].repeat(1, 1, 2)


_kept_bins: Callable[[int, int, float, bool, torch.dtype], Tensor]
_kept_bins = lru_cache(maxsize=64)(torch.inference_mode(False)(_low_bins))  # what is kept is used in training too


def check_images(images: object) -> Tensor:
    """The images; TypeError if they are not a float tensor, ValueError if they are not (N, C, H, W) with pixels."""
    if not isinstance(images, Tensor):
        raise TypeError(f"expected images, a float tensor (N, C, H, W), got {type(images).__name__}")
    if not images.is_floating_point():
        raise TypeError(f"expected float images (divide integers by 255), got {images.dtype}")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"expected images of shape (N, C, H, W), got {tuple(images.shape)}")
    return images


def _low(images: Tensor, low_bins: Tensor) -> Tensor:
    spectrum = torch.fft.rfft2(images)
    torch.view_as_real(spectrum).mul_(low_bins)  # half the work of a complex product
    return torch.fft.irfft2(spectrum, s=images.shape[-2:])


def _room_for(images: Tensor) -> Tensor:
    # Page faults take as long as the transforms. NumPy asks for huge pages, and all threads touch them here first.
    room = torch.from_numpy(np.empty(images.shape, images.numpy().dtype))
    room.view(-1)[::512].zero_()
    return room


def _traced(images: Tensor) -> bool:
    """Whether images are a compiler's, a fake mode's, or those of a transform of `torch.func` (vmap, jvp, ...)."""
    compiling = torch.compiler.is_compiling() or torch.jit.is_tracing() or type(images) is not Tensor
    return compiling or torch._C._functorch.is_functorch_wrapped_tensor(images)


def _in_blocks(images: Tensor) -> bool:
    """Whether images are split in blocks: where only the result matters, and neither a trace nor a derivative."""
    return (
        not _traced(images)
        and images.device.type == "cpu"
        and images[:, 0].numel() > _BLOCK
        and not images.requires_grad
        and forward_ad.unpack_dual(images).tangent is None
    )


def _split_in_blocks(images: Tensor, low_bins: Tensor) -> tuple[Tensor, Tensor]:
    lfc, hfc = _room_for(images), _room_for(images)
    # Freeing so much makes glibc keep the memory of smaller blocks.
    torch.empty(30 * 2**20, dtype=torch.uint8, device="cpu")
    size = max(_BLOCK // images[0, 0].numel(), 1)
    for block, low, high in zip(*(tensor.split(size) for tensor in (images.contiguous(), lfc, hfc)), strict=True):
        torch.sub(block, low.copy_(_low(block, low_bins)), out=high)
    return lfc, hfc


def split(images: Tensor, radius: float, *, inclusive: bool = False) -> tuple[Tensor, Tensor]:
    """Split images at a radius in the centred DFT plane, each channel on its own.

    Args:
        images: (N, C, H, W), floating type, any range, any H and W, any device. Half types are computed in float32.
        radius: DFT bins, 0 or more; a bin is low when its distance to frequency zero is < radius.
        inclusive: <= in place of <.
    Returns:
        (lfc, hfc), like images, but they leave [0, 1]; lfc + hfc equals images up to rounding.
    Raises:
        TypeError, ValueError: images are not a float tensor (N, C, H, W), or radius no finite number of at least 0.
    Source: paper, section 3; strict "<" by default as the authors' published images show.

    Differentiable. The centre is frequency zero at odd sizes too; at even sizes it is the authors' N/2. A bin is one
    cycle per image along either side.
    """
    check_images(images)
    radius = check_radius(radius)
    if images.shape[0] == 0:
        return images.clone(), images.clone()
    full = (images if images.dtype in (torch.float32, torch.float64) else images.float()).resolve_neg()
    bins = _low_bins if _traced(full) else _kept_bins  # a tracer must not see what is kept, nor leave anything there
    height, width = images.shape[-2:]
    low_bins = bins(height, width, radius, bool(inclusive), full.dtype).to(images.device)
    if _in_blocks(full):
        lfc, hfc = _split_in_blocks(full, low_bins)
    else:
        lfc = _low(full, low_bins)
        hfc = full - lfc
    return lfc.to(images.dtype), hfc.to(images.dtype)


Radius = float | tuple[float, float]  # a pair: drawn evenly between the two at each call


class _Band(nn.Module):
    names: tuple[str, ...]  # of the radii

    def __init__(self, *radii: Radius, inclusive: bool = False) -> None:
        super().__init__()
        pairs = [radius if isinstance(radius, tuple | list) else (radius, radius) for radius in radii]
        if wrong := [pair for pair in pairs if len(pair) != 2]:
            raise ValueError(f"expected each radius as a number or a pair to draw between, got {wrong[0]}")
        self.radii = [tuple(map(check_cut, pair)) for pair in pairs]
        ends = [end for pair in self.radii for end in pair]
        if ends != sorted(ends):
            raise ValueError(f"expected radii in ascending order, got {', '.join(map(str, radii))}")
        self.inclusive = inclusive

    def extra_repr(self) -> str:
        """The radii in DFT bins, as in `LowPass(radius=8)`."""
        ends = [[int(end) if end.is_integer() else end for end in pair] for pair in self.radii]
        shown = [low if low == high else (low, high) for low, high in ends]
        named = [f"{name}={value}" for name, value in zip(self.names, shown, strict=True)]
        return ", ".join(named + ["inclusive=True"] * self.inclusive)

    def _band(self, images: Tensor, radii: Sequence[float]) -> Tensor:
        raise NotImplementedError

    def forward(self, images: object, *others: object) -> object:
        # On the CPU whatever the default device is, so that a seed gives the same radii everywhere.
        drawn = [
            low if low == high else low + (high - low) * torch.rand((), device="cpu").item() for low, high in self.radii
        ]

        def filtered(images: Tensor) -> Tensor:
            single = isinstance(images, Tensor) and images.ndim == 3
            band = self._band(images[None] if single else images, drawn)
            return band[0] if single else band

        if others or not isinstance(images, Tensor) or type(images).__module__.startswith("torchvision"):
            return _in_sample(filtered, (images, *others))
        return filtered(images)


def _in_sample(filtered: Callable[[Tensor], Tensor], sample: Sequence) -> object:
    """The sample with its images filtered: those that the transforms of torchvision v2 take for images."""
    from PIL.Image import Image
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    images = []

    def transformed(value: Tensor | Image) -> Tensor:
        if isinstance(value, Image):
            if value.mode in ("I", "F"):
                raise ValueError(f"expected a picture whose values have a known range, got one of mode {value.mode}")
            value = value.convert("RGB") if value.mode in ("P", "PA") else value  # not the numbers of its palette
            value = v2.functional.to_dtype(v2.functional.to_image(value), torch.float32, scale=True)
        elif isinstance(value, tv_tensors.TVTensor) and not isinstance(value, tv_tensors.Image | tv_tensors.Video):
            return value  # boxes and masks
        images.append(value)
        band = filtered(value)
        return tv_tensors.wrap(band, like=value) if isinstance(value, tv_tensors.TVTensor) else band

    result = v2.Lambda(transformed, Tensor, Image)(*sample)
    if not images:
        check_images(sample[0])  # names what came in place of an image
    return result


class _Cut(_Band):
    names = ("radius",)
    part: int  # of the result of `split`

    def __init__(self, radius: Radius, *, inclusive: bool = False) -> None:
        super().__init__(radius, inclusive=inclusive)

    def _band(self, images: Tensor, radii: Sequence[float]) -> Tensor:
        return split(images, radii[0], inclusive=self.inclusive)[self.part]


class LowPass(_Cut):
    """Keep the low-frequency component of images, in front of a network or as a transform; see `split`.

    Args:
        radius: as in `split`, but 0 or at least 1; or a pair: each call draws a radius evenly between the two.
        inclusive: as in `split`.

    It takes float images (N, C, H, W) or (C, H, W), or what a transform of torchvision v2 takes, such as an image and
    its label, of which it changes the images only. Images of `tv_tensors` keep their type; a PIL image becomes one, of
    float32, because a band leaves [0, 1]. At a fixed radius it can be compiled, exported and mapped (`torch.func`).

    Raises:
        TypeError, ValueError: as `split`, or a radius between 0 and 1, see `nyquist`.
    Source: paper, section 3; a radius that is drawn is ours.
    """

    part = 0


class HighPass(_Cut):
    """Keep the high-frequency component of images; see `LowPass`."""

    part = 1


class BandPass(_Band):
    """Keep the frequencies from a radius `inner` on and below a radius `outer`, in DFT bins; see `LowPass`.

    Raises:
        ValueError: inner above outer.
    """

    names = ("inner", "outer")

    def __init__(self, inner: Radius, outer: Radius, *, inclusive: bool = False) -> None:
        super().__init__(inner, outer, inclusive=inclusive)

    def _band(self, images: Tensor, radii: Sequence[float]) -> Tensor:
        core, within = (split(images, radius, inclusive=self.inclusive)[0] for radius in radii)
        return within - core


def swap_amplitude(images: Tensor, others: Tensor, radius: float | None = None) -> Tensor:
    """Images with the phases of their own and the amplitudes of others, as an augmentation or to tell the two apart.

    Args:
        images, others: (N, C, H, W), as in `split`; `images.roll(1, dims=0)` are others from the same batch.
        radius: only frequencies below it, as in `split`, get the other amplitude; None for all.
    Returns:
        Like images; they leave [0, 1].
    Raises:
        TypeError, ValueError: as `split`, or others of another shape.
    Source: Chen et al., ICCV 2021, for all frequencies; Yang and Soatto, CVPR 2020, for the low ones, in a square.
    """
    check_images(images)
    check_images(others)
    if images.shape != others.shape:
        raise ValueError(f"expected others of shape {tuple(images.shape)}, got {tuple(others.shape)}")
    if len(images) == 0:
        return images.clone()
    wide = torch.float64 if torch.float64 in (images.dtype, others.dtype) else torch.float32
    spectrum, other = (torch.fft.rfft2(one.to(wide)) for one in (images, others))
    height, width = images.shape[-2:]
    amplitude = other.abs()
    if radius is not None:
        low = torch.fft.ifftshift(mask(height, width, radius))[:, : width // 2 + 1].to(images.device)
        amplitude = amplitude.where(low, spectrum.abs())
    phase = torch.atan2(spectrum.imag, spectrum.real)  # PyTorch 2.6 has no `angle` on MPS
    return torch.fft.irfft2(torch.polar(amplitude, phase), s=(height, width)).to(images.dtype)


def svd_split(
    images: Tensor, radius: float, *, factors: tuple[Tensor, Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Split images by a truncated singular value decomposition that keeps about as much energy as the LFC at a radius.

    Each channel of an image keeps the same number of singular values: where the energy is nearest to that of the LFC.

    Args:
        images, radius: as in `split`.
        factors: `torch.linalg.svd(images, full_matrices=False)`, if known already.
    Returns:
        (low, high, rank): low + high equals images up to rounding; rank is (N,) int64.
    Source: paper, section 8, which does not say how many singular values it keeps; matching the energy is ours.
    """
    check_images(images)
    full = images if images.dtype == torch.float64 else images.float()
    wanted = split(full, radius)[0].square().sum(dim=(1, 2, 3))
    u, s, vh = factors or torch.linalg.svd(full, full_matrices=False)
    kept = torch.cat([torch.zeros_like(wanted)[:, None], s.square().sum(dim=1).cumsum(dim=1)], dim=1)
    rank = (kept - wanted[:, None]).abs().argmin(dim=1)
    chosen = torch.arange(s.shape[-1], device=s.device) < rank[:, None, None]
    low = ((u * (s * chosen)[..., None, :]) @ vh).to(images.dtype)
    return low, images - low, rank
