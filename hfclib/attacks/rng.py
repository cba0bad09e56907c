"""Random numbers of an attack, for each image from a stream of its own.

The stream depends on the attack's seed and on the image's index in the data alone: not on the batch that the image is
in, on what becomes of other images, or on the eps. So an image is attacked alike in every batch, at each eps from the
same start but for its length, and a prediction that rounding turns over changes no other image's attack.
"""

from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor

_HIGHEST_INDEX = 10**8  # as many seeds are drawn


class PerImageRNG:
    """Random numbers for images, each from its own stream, which goes on from call to call.

    Args:
        count: number of images.
        seed: a whole number of at least 0; None draws one from PyTorch's own generator.
        indices: (count,) whole numbers of at least 0; None for 0 to count - 1.
    Raises:
        ValueError: another seed, or indices of another shape, type or range.
    """

    def __init__(self, count: int, seed: int | None, indices: Tensor | None = None) -> None:
        places = check_indices(indices, count)
        generator = torch.Generator("cpu").manual_seed(draw_seed() if seed is None else check_seed(seed))
        highest = int(places.max()) if count else -1
        seeds = torch.randint(2**62, (highest + 1,), generator=generator, device="cpu")[places]
        self.streams = [torch.Generator("cpu").manual_seed(number) for number in seeds.tolist()]

    def numbers(self, which: Tensor, shape: Sequence[int], draw: Callable[..., Tensor] = torch.rand) -> Tensor:
        """Numbers from [0, 1), or from `draw`, for the images `which`, each of `shape`, float32 on their device."""
        options = {"dtype": torch.float32, "device": "cpu"}
        drawn = [draw(*shape, generator=self.streams[place], **options) for place in which.tolist()]
        return torch.stack(drawn).to(which.device)


def draw_seed() -> int:
    """A seed from PyTorch's own generator, from 0 to 2**62 - 1."""
    return int(torch.randint(2**62, (), device="cpu"))


def check_seed(seed: int) -> int:
    """The seed; ValueError if it is not a whole number of at least 0."""
    if not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise ValueError(f"expected seed, a whole number of at least 0, got {seed!r}")
    return int(seed)


def check_indices(indices: Tensor | None, count: int) -> Tensor:
    """The indices of `count` images as int64 on the CPU, 0 to count - 1 for None; ValueError for others."""
    if indices is None:
        return torch.arange(count, device="cpu")
    indices = torch.as_tensor(indices, device="cpu")  # and not on the default device, if that is another
    if indices.shape != (count,) or indices.is_floating_point() or indices.dtype == torch.bool:
        kind = f"{tuple(indices.shape)} of {indices.dtype}"
        raise ValueError(f"expected indices, one whole number per image, got {kind} for {count} images")
    if count and not 0 <= indices.min() <= indices.max() <= _HIGHEST_INDEX:
        raise ValueError(f"expected indices from 0 to {_HIGHEST_INDEX}, got {indices.min()} to {indices.max()}")
    return indices.long()
