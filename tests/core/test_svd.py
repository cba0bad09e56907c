"""hfclib.frequency.svd_split against the decomposition by NumPy and a search through every rank."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfclib import split
from hfclib.frequency import svd_split
from hfclib.paper.fig2 import mean_ranks


def truncated(image, rank):
    """Keep the largest `rank` singular values of each channel of a (C, H, W) array."""
    kept = np.empty_like(image)
    for channel, matrix in enumerate(image):
        u, s, vh = np.linalg.svd(matrix, full_matrices=False)
        kept[channel] = sum((s[i] * np.outer(u[:, i], vh[i]) for i in range(rank)), np.zeros_like(matrix))
    return kept


def nearest_rank(image, radius):
    """The rank whose energy comes nearest to the LFC's, by trying all."""
    energy = split(torch.from_numpy(image)[None], radius)[0].square().sum().item()
    ranks = range(min(image.shape[1:]) + 1)
    return min(ranks, key=lambda rank: abs(np.square(truncated(image, rank)).sum() - energy))


@pytest.fixture
def pictures():
    """Images with energy at every frequency, of which a cut takes a part."""
    return torch.rand(9, 3, 8, 8, dtype=torch.float64) ** torch.linspace(1, 6, 9).view(-1, 1, 1, 1)


def test_the_rank_is_the_nearest_in_energy_and_the_low_part_numpys_truncation(pictures):
    for radius in [0, 0.5, 1, 2, 3, 3.7, 5, 6, 10]:
        low, high, rank = svd_split(pictures, radius)
        expected = [nearest_rank(image, radius) for image in pictures.numpy()]
        assert rank.tolist() == expected
        assert radius != 3 or len(set(expected)) > 1  # images have ranks of their own
        assert rank.dtype == torch.int64
        for image, kept, number in zip(pictures.numpy(), low.numpy(), expected, strict=True):
            np.testing.assert_allclose(kept, truncated(image, number), atol=1e-12)
        torch.testing.assert_close(low + high, pictures, rtol=0, atol=1e-12)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.floats(0, 8), st.integers(0, 999))
def test_low_and_high_add_up_to_the_images(count, channels, height, width, radius, seed):
    images = torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(seed))
    low, high, rank = svd_split(images, radius)
    assert low.shape == high.shape == images.shape
    torch.testing.assert_close(low + high, images)
    assert ((rank >= 0) & (rank <= min(height, width))).all()


def test_a_black_image_has_rank_zero():
    low, high, rank = svd_split(torch.zeros(1, 3, 8, 8), 4)
    assert rank.tolist() == [0]
    assert not low.any()
    assert not high.any()


def test_one_decomposition_serves_several_radii(pictures):
    u, s, vh = torch.linalg.svd(pictures, full_matrices=False)
    for radius in (2, 4):
        expected = svd_split(pictures, radius)
        assert all(map(torch.equal, svd_split(pictures, radius, factors=(u, s, vh)), expected))
        assert torch.equal(svd_split(pictures, radius, factors=(-u, s, vh))[0], -expected[0])  # not decomposed again


def test_mean_ranks_by_hand(pictures):
    ranks = mean_ranks(pictures, (2, 4))
    for radius in (2, 4):
        expected = np.mean([nearest_rank(image, radius) for image in pictures.numpy()])
        assert ranks[radius] == pytest.approx(expected, abs=0.05)
    assert ranks[2] < ranks[4]


def test_refusals():
    for images, radius, error, message in [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 4, TypeError, "float images"),
        (torch.rand(3, 8, 8), 4, ValueError, r"\(N, C, H, W\)"),
        (torch.rand(1, 3, 8, 8), -1, ValueError, "at least 0"),
        (torch.rand(1, 3, 8, 8), float("nan"), ValueError, "finite radius"),
        (torch.rand(1, 3, 8, 8), "4", TypeError, "must be real number"),
    ]:
        with pytest.raises(error, match=message):
            svd_split(images, radius)


def test_half_precision():
    images = torch.rand(2, 3, 8, 8)
    low, high, rank = svd_split(images.half(), 3)
    assert low.dtype == high.dtype == torch.float16
    assert rank.tolist() == [nearest_rank(image, 3) for image in images.half().float().numpy()]
    torch.testing.assert_close(low + high, images.half(), rtol=0, atol=2e-3)
