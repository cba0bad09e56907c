"""hfclib.training.batches: every image once an epoch, and crops and flips as a slow reference makes them."""

import numpy as np
import pytest
import torch

from hfclib.data.cifar import to_float
from hfclib.training.batches import PADDING, Batches


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (23, 3, 10, 7), dtype=torch.uint8)


@pytest.fixture
def numbers():
    """A different label for each image, so that a batch says which images it holds."""
    return torch.arange(23)


def epoch(batches, seed=0):
    return list(batches.epoch(torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(("augment", "batch_size", "sizes"), [(True, 5, [5, 5, 5, 5, 3]), (False, 100, [23])])
def test_every_image_once_an_epoch(pictures, numbers, augment, batch_size, sizes):
    batches = Batches(pictures, numbers, batch_size=batch_size, augment=augment)
    made = epoch(batches)
    assert [len(images) for images, _ in made] == sizes
    assert len(batches) == len(sizes)
    for images, _ in made:
        assert 0 <= images.min() <= images.max() <= 1
        assert images.shape[1:] == (3, 10, 7)
        assert images.is_contiguous(memory_format=torch.channels_last)
    assert sorted(torch.cat([labels for _, labels in made]).tolist()) == list(range(23))


def test_images_without_augmentation_are_exact_and_keep_their_labels(pictures, numbers):
    for images, labels in epoch(Batches(pictures, numbers, batch_size=5)):
        assert images.dtype == torch.float32
        assert torch.equal(images, to_float(pictures[labels]))


def by_hand(pictures, seed):
    """Shuffled, cropped and flipped images, one after the other, from the same draws."""
    generator = torch.Generator().manual_seed(seed)
    count, channels, height, width = pictures.shape
    order = torch.randperm(count, generator=generator).tolist()
    top, left = (torch.randint(0, 2 * PADDING + 1, (count,), generator=generator).tolist() for _ in range(2))
    flip = (torch.rand(count, generator=generator) < 0.5).tolist()
    for place, index in enumerate(order):
        padded = np.zeros((channels, height + 2 * PADDING, width + 2 * PADDING), np.float32)
        padded[:, PADDING : PADDING + height, PADDING : PADDING + width] = pictures[index].numpy()
        crop = padded[:, top[place] : top[place] + height, left[place] : left[place] + width]
        yield index, (crop[:, :, ::-1] if flip[place] else crop) / np.float32(255)


def test_smaller_images_are_means_of_the_same_crops(numbers):
    # Halved with antialiasing, a pixel is the mean of four pixels a side, weighted 1, 3, 3, 1.
    pictures = torch.randint(0, 256, (23, 3, 16, 16), dtype=torch.uint8)
    batches = Batches(pictures, numbers, batch_size=5, augment=True)
    smaller = list(batches.epoch(torch.Generator().manual_seed(0), 8))
    for (images, labels), (whole, expected_labels) in zip(smaller, epoch(batches), strict=True):
        assert torch.equal(labels, expected_labels)
        weights = torch.tensor([1.0, 3, 3, 1]) / 8
        windows = whole[:, :, 1:-1, 1:-1].unfold(2, 4, 2).unfold(3, 4, 2)  # of all but the border's small pixels
        means = (windows * weights[:, None] * weights).sum((-1, -2))
        torch.testing.assert_close(images[:, :, 1:-1, 1:-1], means)
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_augmentation_equals_one_image_at_a_time(pictures, numbers):
    made = epoch(Batches(pictures, numbers, batch_size=5, augment=True), 1)
    images, labels = (torch.cat(parts) for parts in zip(*made, strict=True))
    for image, label, (index, expected) in zip(images, labels, by_hand(pictures, 1), strict=True):
        assert label == index
        assert np.array_equal(image.numpy(), expected)


def test_augmentation_draws_every_crop_and_flips_half():
    # Two channels that hold each pixel's row and column: one pixel of a result tells crop and flip.
    side, count = 12, 3_000
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    pictures = (torch.stack([rows, columns]) + 1).to(torch.uint8).expand(count, 2, side, side)
    images, _ = epoch(Batches(pictures, torch.zeros(count, dtype=torch.int64), batch_size=count, augment=True))[0]
    middle, beside = (images[:, :, side // 2, side // 2 + i].mul(255).round().long() - 1 for i in (0, 1))
    seen = {(*place, flipped) for place, flipped in zip(middle.tolist(), (beside < middle)[:, 1].tolist(), strict=True)}
    assert len(seen) == 2 * (2 * PADDING + 1) ** 2
    assert 0.45 < (beside < middle)[:, 1].float().mean() < 0.55


def test_rescaling_divides_each_image_by_its_own_maximum(pictures, numbers):
    pictures[3] = 0  # a black image stays black
    options = {"batch_size": 5, "augment": True}
    plain, rescaled = (epoch(Batches(pictures, numbers, rescale=how, **options)) for how in ("none", "max"))
    for (images, labels), (scaled, same) in zip(plain, rescaled, strict=True):
        assert torch.equal(labels, same)
        for image, label, result in zip(images, labels, scaled, strict=True):
            torch.testing.assert_close(result, image if label == 3 else image / image.max())


def test_the_same_generator_gives_the_same_epoch_and_another_another(pictures, numbers):
    batches = Batches(pictures, numbers, batch_size=23, augment=True)
    (images, labels), (again, same), (others, different) = (epoch(batches, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(images, again)
    assert torch.equal(labels, same)
    assert not torch.equal(labels, different)
    assert not torch.equal(images, others)
    generator = torch.Generator().manual_seed(0)
    (_, first), (_, second) = next(batches.epoch(generator)), next(batches.epoch(generator))
    assert not torch.equal(first, second)


def test_the_originals_are_left_alone(pictures, numbers):
    before = pictures.clone()
    for images, _ in epoch(Batches(pictures, numbers, batch_size=5)):
        images.zero_()
    assert torch.equal(pictures, before)
    batches = Batches(pictures, numbers, batch_size=23)
    epoch(batches)[0][0].zero_()
    assert epoch(batches)[0][0].any()


def test_a_band_keeps_its_sign_and_scale_and_has_a_neutral_border(pictures, numbers):
    pictures = pictures.clamp(min=1)  # so that only the crop's border is black
    band = (to_float(pictures) - 0.5).half()
    bands, wholes = (epoch(Batches(each, numbers, batch_size=5, augment=True)) for each in (band, pictures))
    for (images, labels), (pixels, same) in zip(bands, wholes, strict=True):
        assert torch.equal(labels, same)
        expected = torch.where(pixels == 0, 0, pixels - 0.5)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-3)
