"""Training batches: the whole set stays on the device as bytes; crop, flip and scaling are a few tensor operations."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from hfclib.batching import batch_sizes
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

    def epoch(self, generator: torch.Generator, size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in an order and with crops and flips drawn from `generator` (on the CPU).

        Args:
            size: side in pixels to which each image is shrunk, last; None leaves it as it is.
        Yields:
            (images float32 (n, C, H, W), in [0, 1] unless a raw band, channels_last; labels (n,) int64).
        """
        count, device = len(self.labels), self.images.device
        drawn = {"generator": generator, "device": generator.device}  # not on the default device, if that is another
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
