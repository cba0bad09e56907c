"""Training batches: the whole set stays on the device as bytes; crop, flip and scaling are a few tensor operations.

Or a DataLoader makes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from hfclib.batching import batch_sizes, batches, check_labels, check_pixels, known_size, pair_of
from hfclib.data import to_float
from hfclib.transforms import rescaled

PADDING = 4  # pixels of zeros on each side before the random crop, the usual value for CIFAR-10


class Batches:
    """Shuffled batches of a training set.

    Args:
        images, labels: (N, C, H, W) uint8, or float such as a band; (N,) int64. The crop's border is 0.
        batch_size: images per batch; the last batch of an epoch is as in `batch_sizes`.
        augment: a random crop out of the zero-padded image and a horizontal flip, drawn for each image.
        rescale: "none", "max" or "range"; see `rescaled`.
        device: where the images stay and the batches are made.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        augment: bool = False,
        rescale: str = "none",
        device: torch.device | str = "cpu",
    ) -> None:
        self.batch_size, self.augment, self.rescale = batch_size, augment, rescale
        self.height, self.width = images.shape[-2:]
        pad = PADDING if augment else 0
        # Rows of pixels with the channels last: a crop then copies runs of bytes, and batches come out channels_last.
        self.images = F.pad(images, (pad,) * 4).permute(0, 2, 3, 1).contiguous().to(device)
        self.labels = labels.to(device)

    def __len__(self) -> int:
        return len(batch_sizes(len(self.labels), self.batch_size))

    @property
    def images_per_epoch(self) -> int:
        """How many images an epoch has."""
        return len(self.labels)

    def epoch(self, generator: torch.Generator, size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in an order and with crops and flips drawn from `generator` (on the CPU).

        Args:
            size: side in pixels to which each image is shrunk, last; None leaves it as it is.
        Yields:
            (images float32 (n, C, H, W), in [0, 1] unless a raw band, channels_last; labels (n,) int64).
        """
        count, device = len(self.labels), self.images.device
        drawn: dict = {"generator": generator, "device": generator.device}  # which need not be the default device
        order = torch.randperm(count, **drawn).to(device)
        if self.augment:
            top, left = (torch.randint(0, 2 * PADDING + 1, (count, 1), **drawn) for _ in range(2))
            flip = torch.rand(count, 1, **drawn) < 0.5
            down, across = (torch.arange(side, device=generator.device) for side in (self.height, self.width))
            rows, columns = (top + down).to(device), (left + torch.where(flip, across.flip(0), across)).to(device)
        sizes = batch_sizes(count, self.batch_size)
        for picked, place in zip(order.split(sizes), torch.arange(count, device=device).split(sizes), strict=True):
            if self.augment:
                pixels = self.images[picked[:, None, None], rows[place][:, :, None], columns[place][:, None, :]]
            else:
                pixels = self.images[picked]
            batch = pixels.permute(0, 3, 1, 2).float()
            if pixels.dtype == torch.uint8:
                batch.div_(255)
            batch = rescaled(batch, self.rescale)
            if size:
                batch = F.interpolate(batch, size=(size, size), mode="bilinear", antialias=True)
                batch = batch.contiguous(memory_format=torch.channels_last)
            yield batch, self.labels[picked]


class LoaderBatches:
    """The batches of a DataLoader, which shuffles and changes the images itself.

    Args:
        loader: its batches are pairs, or mappings as in `hfclib.batching.batches`: images (N, C, H, W), uint8 or float
            in [0, 1], and labels (N,).
        device: where the network is.
    Raises:
        TypeError: the loader has no length, which the schedule of the learning rate needs.
    """

    def __init__(self, loader: DataLoader, device: torch.device | str) -> None:
        self.loader, self.device = loader, device
        try:
            self.count = len(loader)
        except TypeError as error:
            raise TypeError(f"expected a DataLoader with a length, which the learning rate needs ({error})") from error

    def __len__(self) -> int:
        return self.count

    @property
    def images_per_epoch(self) -> int | None:
        """How many images an epoch has, where that is known."""
        return known_size(self.loader)

    def epoch(self, generator: torch.Generator, size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The loader's batches, as those of `Batches.epoch`; both arguments are its own affair."""
        for number, batch in enumerate(self.loader):
            if number == self.count:  # more than the schedule of the learning rate has steps for
                raise ValueError(f"expected {self.count} batches, the length of the DataLoader, got more")
            images, labels = pair_of(batch)
            images = pixels(images.to(self.device))
            check_pixels(images, tolerance=0.001)
            yield images, check_labels(labels, images)


def first_images(model: nn.Module, loader: DataLoader, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` images, float32, and labels that a DataLoader yields, on the CPU.

    Raises:
        TypeError, ValueError: one of their batches is no images and labels that the model can be trained on.
    """
    pairs = ((pixels(images), labels) for images, labels in map(_checked_pair, loader))
    parts = []
    for part in batches(model, pairs):
        parts.append(part)
        if parts[0][0].shape[1:] != part[0].shape[1:]:
            shapes = " and ".join(str(tuple(some.shape[1:])) for some in (parts[0][0], part[0]))
            raise ValueError(f"expected images of one size, got {shapes}")
        if sum(len(labels) for _, labels in parts) >= count:
            break
    images, labels = (torch.cat(some)[:count].cpu() for some in zip(*parts, strict=True))
    return images, labels


def _checked_pair(batch: Any) -> tuple[Tensor, Tensor]:
    whole = isinstance(batch, Mapping) or (isinstance(batch, Sequence) and len(batch) > 1)
    if not whole:
        raise TypeError(f"expected a DataLoader of images and labels, got batches of {type(batch).__name__}")
    images, labels = pair_of(batch)
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        kinds = f"{type(images).__name__} and {type(labels).__name__}"
        raise TypeError(f"expected a DataLoader of images and labels, two tensors, got {kinds}")
    return images, labels


def pixels(images: Tensor) -> Tensor:
    """Images as in `fit`, as float32."""
    return images.float() if images.is_floating_point() else to_float(images)
