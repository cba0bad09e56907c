"""hfclib.transforms: what a network is fed of a band."""

import pytest
import torch

from hfclib.data.cifar import MEAN
from hfclib.transforms import feed_images, rescaled


def test_raw_is_the_band_itself(images):
    assert torch.equal(feed_images(images, "raw"), images)
    assert torch.equal(feed_images(images, "raw", add_mean=True), images)


def test_max_divides_each_image_by_its_own_maximum():
    images = torch.randn(20, 3, 8, 8)
    fed = feed_images(images, "max")
    for image, result in zip(images, fed, strict=True):
        torch.testing.assert_close(result, image / image.max())
    torch.testing.assert_close(fed.amax(dim=(1, 2, 3)), torch.ones(20))


def test_max_leaves_a_faint_image_as_it_is():
    for highest in [0.0, 0.99e-4, -0.5]:
        images = torch.rand(2, 3, 8, 8)
        images[1] = (torch.rand(3, 8, 8) - 1) * 1e-5 + highest
        images[1, 0, 0, 0] = highest
        fed = feed_images(images, "max")
        assert torch.equal(fed[1], images[1])
        torch.testing.assert_close(fed[0], images[0] / images[0].max())


def test_max_still_divides_an_image_a_little_above_faint():
    assert feed_images(torch.full((1, 3, 2, 2), 1.1e-4), "max").max() == 1


def test_mean_adds_the_mean_colour_to_an_hfc_only(images):
    coloured = feed_images(images, "mean", add_mean=True, colour=MEAN)
    for channel in range(3):
        torch.testing.assert_close(coloured[:, channel], images[:, channel] + MEAN[channel])
    assert torch.equal(feed_images(images, "mean"), images)


def test_an_hfc_gets_no_colour_that_nobody_gave(images):
    with pytest.raises(ValueError, match=r"expected colour, one number per channel \(3\), got 0"):
        feed_images(images, "mean", add_mean=True)


def test_unknown_feed(images):
    for feed in ["Max", "", None]:
        with pytest.raises(ValueError, match="expected feed, one of raw, max, mean"):
            feed_images(images, feed)


def test_range_maps_each_image_to_the_pixel_range():
    images = torch.randn(20, 3, 8, 8)
    fed = rescaled(images, "range")
    for image, result in zip(images, fed, strict=True):
        torch.testing.assert_close(result, (image - image.min()) / (image.max() - image.min()))
    assert torch.equal(fed.amin(dim=(1, 2, 3)), torch.zeros(20))
    torch.testing.assert_close(fed.amax(dim=(1, 2, 3)), torch.ones(20))


def test_range_does_not_stretch_an_image_without_contrast():
    images = torch.full((2, 3, 4, 4), 0.3)
    images[0, 0, 0, 0] += 0.9e-4
    assert rescaled(images, "range").abs().max() < 1e-4


def test_none_changes_nothing(images):
    assert rescaled(images, "none") is images


def test_unknown_way_to_rescale(images):
    for how in ["Range", "", None, "mean"]:
        with pytest.raises(ValueError, match="expected how, one of none, max, range"):
            rescaled(images, how)
