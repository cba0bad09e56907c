"""What a report is on: batches of images and labels, and what is known about them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from hfclib.batching import KEYS, known_size, pair_of


@dataclass(frozen=True)
class DatasetSpec:
    """Data and what is known about them.

    Attributes:
        batches: (images, labels), which can be read more than once; see `hfclib.batching.batches`. If `unlabelled`, all
            labels are 0.
        name: on the page.
        colour: the mean colour, if it is known.
        skipped: the number of images left out.
        pictures_sha256: of the pictures that the data are made of and their labels, in whatever size and order they are
            read: reports of the same pictures in other sizes can be compared.
        classes: names of classes by their number, as far as they are known.
        files: the file of each image, in order, if there is one.
        count: the number of images, if it is known before they are read.
        unlabelled: the labels are not known.
    """

    batches: Iterable
    name: str | None = None
    colour: Sequence[float] | None = None
    skipped: int = 0
    pictures_sha256: str | None = None
    classes: Mapping[int, str] = field(default_factory=dict)
    files: Sequence[str] = ()
    count: int | None = None
    unlabelled: bool = False

    @classmethod
    def of(cls, data: "DatasetSpec | tuple[Tensor, Tensor] | Tensor | Iterable", *, unlabelled: bool) -> "DatasetSpec":
        """Images and labels, or batches of them; if `unlabelled`, images or batches of them, with labels or without.

        Raises:
            TypeError, ValueError: other things, or an iterator, which can be read only once.
        """
        if isinstance(data, cls):
            if unlabelled and not data.unlabelled:
                raise ValueError("expected a DatasetSpec without labels, as of named_data(..., unlabelled=True)")
            return data
        if isinstance(data, str | Path):
            advice = "hfclib.reporting.named.named_data(folder, sizes=...) reads one"
            raise ValueError(f"expected images and labels, or batches of them, got the name {str(data)!r}: {advice}")
        if isinstance(data, Tensor) and unlabelled:
            data = [data]
        if isinstance(data, Tensor) or not isinstance(data, Iterable):
            raise TypeError(f"expected images and labels, or batches of them, got {type(data).__name__} alone")
        if iter(data) is data:
            raise ValueError("expected data that can be read more than once, such as a DataLoader, got an iterator")
        if isinstance(data, tuple) and isinstance(data[0], Tensor):
            only_images = unlabelled and getattr(data[-1], "ndim", 1) == data[0].ndim  # labels may be a list
            data = list(data) if only_images else [data]
        if unlabelled:
            bare = _Unlabelled(data)
            listed = isinstance(data, list | tuple)
            return cls(
                bare, count=sum(len(images) for images, _ in bare) if listed else known_size(data), unlabelled=True
            )
        return cls(data, count=known_size(data))


@dataclass(frozen=True)
class _Unlabelled:
    """Batches with labels that are all 0."""

    batches: Iterable

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            images = batch if isinstance(batch, Tensor) else _images_of(batch)
            yield images, torch.zeros(len(images), dtype=torch.int64)


def _images_of(batch: Mapping | Sequence) -> Tensor:
    """The images of a batch with labels or without."""
    if isinstance(batch, Mapping) and (names := [name for name in KEYS[0] if name in batch]):
        return batch[names[0]]
    if isinstance(batch, list | tuple) and len(batch) == 1:  # as of a DataLoader of a TensorDataset of images
        return batch[0]
    return pair_of(batch)[0]
