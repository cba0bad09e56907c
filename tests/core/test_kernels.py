"""hfclib.kernels: equation 3 by hand, filtered kernels and spectra against NumPy, and measures of known kernels."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hfclib import resnet18
from hfclib.kernels import (
    filter_kernels,
    frequency_response,
    high_frequency_share,
    roughness,
    smooth_kernels,
    smoothness_penalty,
)


def one_kernel(values):
    """A model that is one kernel."""
    model = nn.Sequential(nn.Conv2d(1, 1, len(values), padding=len(values) // 2))
    model[0].weight.data = torch.tensor(values, dtype=torch.float32)[None, None]
    return model


@pytest.fixture
def network():
    return resnet18(2)


@pytest.fixture
def weight():
    return torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))


# ---- the paper's rule


def test_equation_3_by_hand():
    """Border duplicated: the corner 1 has the neighbours 1 1 2 / 1 . 2 / 4 4 5, and so on."""
    smoothed = smooth_kernels(one_kernel([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), 0.5)
    around = [
        [1 + 1 + 2 + 1 + 2 + 4 + 4 + 5, 1 + 2 + 3 + 1 + 3 + 4 + 5 + 6, 2 + 3 + 3 + 2 + 3 + 5 + 6 + 6],
        [1 + 1 + 2 + 4 + 5 + 7 + 7 + 8, 1 + 2 + 3 + 4 + 6 + 7 + 8 + 9, 2 + 3 + 3 + 5 + 6 + 8 + 9 + 9],
        [4 + 4 + 5 + 7 + 8 + 7 + 7 + 8, 4 + 5 + 6 + 7 + 9 + 7 + 8 + 9, 5 + 6 + 6 + 8 + 9 + 8 + 9 + 9],
    ]
    by_hand = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]) + 0.5 * torch.tensor(around, dtype=torch.float32)
    assert torch.equal(smoothed[0].weight[0, 0], by_hand)
    assert by_hand[0].tolist() == [11, 14.5, 18]


def test_equation_3_equals_a_loop():
    for rho in [0, 0.3, 1]:
        for size in [2, 3, 5]:
            values = torch.randn(size, size, generator=torch.Generator().manual_seed(size)).tolist()
            smoothed = smooth_kernels(one_kernel(values), rho)[0].weight[0, 0]
            for i, j in itertools.product(range(size), repeat=2):
                around = [
                    values[min(max(i + a, 0), size - 1)][min(max(j + b, 0), size - 1)]
                    for a, b in itertools.product((-1, 0, 1), repeat=2)
                    if a or b
                ]
                assert smoothed[i, j].item() == pytest.approx(values[i][j] + rho * sum(around), rel=1e-5, abs=1e-5)


def test_gain_is_1_plus_8_rho_unless_normalised():
    constant = one_kernel([[2.0] * 3] * 3)
    torch.testing.assert_close(smooth_kernels(constant, 0.25)[0].weight, constant[0].weight * 3)
    torch.testing.assert_close(smooth_kernels(constant, 0.25, normalise=True)[0].weight, constant[0].weight)


@pytest.mark.parametrize(
    "change",
    [
        lambda model, **options: smooth_kernels(model, 1, **options),
        lambda model, **options: filter_kernels(model, 8, **options),
    ],
)
def test_only_the_first_layer_of_a_copy_is_changed(network, change):
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    changed = change(network)
    differing = {name for name, tensor in changed.state_dict().items() if not torch.equal(tensor, before[name])}
    assert differing == {"conv1.weight"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert changed.training
    assert changed.conv1.weight.requires_grad
    everywhere = change(network, layers="all")
    differing = {name for name, tensor in everywhere.state_dict().items() if not torch.equal(tensor, before[name])}
    expected = {
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    }
    assert differing == expected
    assert len(differing) == 17


def test_bad_rules(network):
    for rho, options, error, message in [
        (-0.1, {}, ValueError, "finite rho of at least 0, got -0.1"),
        (math.nan, {}, ValueError, "finite rho"),
        (math.inf, {}, ValueError, "finite rho"),
        ("1", {}, TypeError, "must be real number"),
        (1, {"layers": "last"}, ValueError, "layers, first or all, got 'last'"),
    ]:
        with pytest.raises(error, match=message):
            smooth_kernels(network, rho, **options)


def test_a_model_without_kernels():
    for model in (nn.Linear(2, 2), nn.Conv2d(3, 4, 1)):
        with pytest.raises(ValueError, match="with a convolution larger than 1 x 1"):
            smooth_kernels(model, 1)


# ---- filtered kernels


def test_filtered_kernels_equal_numpys_wherever_they_lie(weight):
    for radius in [3, 8, 12.5, 20]:
        for place in [(0, 0), (14, 14), (30, 5)]:
            model = nn.Conv2d(3, 5, 3)
            model.weight.data = weight.clone()
            filtered = filter_kernels(model, radius).weight.detach().double().numpy()
            down, across = np.ogrid[-16:16, -16:16]
            keep = np.fft.ifftshift(np.hypot(down, across) < radius)
            picture = np.zeros((5, 3, 32, 32))
            picture[..., :3, :3] = weight.numpy()
            picture = np.roll(picture, place, axis=(2, 3))
            low = np.fft.ifft2(np.fft.fft2(picture) * keep).real
            expected = np.roll(low, (-place[0], -place[1]), axis=(2, 3))[..., :3, :3]
            np.testing.assert_allclose(filtered, expected, atol=1e-6)


def test_filtering_extremes(network):
    torch.testing.assert_close(filter_kernels(network, 23).conv1.weight, network.conv1.weight)
    assert filter_kernels(network, 0).conv1.weight.abs().max() < 1e-6
    with pytest.raises(ValueError, match="radius of at least 0"):
        filter_kernels(network, -1)
    with pytest.raises(ValueError, match="k from 1 to 32"):
        filter_kernels(nn.Conv2d(1, 1, 33), 8)


# ---- measures


def test_penalty_by_hand():
    weight = torch.tensor([[[[1.0, 2, 4], [1, 1, 1], [0, 3, 0]]]])
    across, down = [1, 2, 0, 0, 3, -3], [0, -1, -3, -1, 2, -1]
    expected = sum(value**2 for value in across + down) / 12
    assert smoothness_penalty(weight).item() == pytest.approx(expected)
    norm = math.sqrt((weight**2).sum().item())
    assert roughness(weight).item() == pytest.approx(sum(map(abs, across + down)) / 12 / (norm / 3))


def test_penalty_has_a_gradient_and_measures_have_none(weight):
    weight.requires_grad_()
    smoothness_penalty(weight).backward()
    assert weight.grad.abs().min() > 0
    assert not roughness(weight).requires_grad
    assert not high_frequency_share(weight, 8).requires_grad
    assert not frequency_response(weight).requires_grad


def test_roughness_compares_sizes_and_ignores_the_scale():
    for size in [3, 5]:
        normal = torch.randn(4_000, 1, size, size)
        uniform = torch.rand(4_000, 1, size, size) - 0.5
        by_norm = roughness(normal)
        assert roughness(normal * 7).sub(by_norm).abs().max() < 1e-5
        # Small kernels sit above 2 / sqrt(pi) and 2 / sqrt(3): their own root mean square is in the denominator.
        assert by_norm.mean().item() == pytest.approx({3: 1.160, 5: 1.140}[size], abs=0.01)
        assert roughness(uniform).mean().item() == pytest.approx({3: 1.169, 5: 1.159}[size], abs=0.01)
        assert roughness(torch.full((2, 3, size, size), 0.3)).max() == 0
        checkers = (torch.arange(size)[:, None] + torch.arange(size)) % 2 * 2.0 - 1
        assert roughness(checkers[None, None]).item() == pytest.approx(2)
        assert roughness(torch.zeros(1, 1, size, size)).item() == 0
        assert roughness((normal * 1e-4).half()).sub(by_norm).abs().mean() < 0.01


def spectrum(kernel):
    """The 32 x 32 spectrum of a kernel by its definition, with frequency zero at [16, 16]."""
    u = np.arange(-16, 16)[:, None]
    waves = np.exp(-2j * np.pi * u * np.arange(kernel.shape[0])[None] / 32)
    return waves @ kernel @ waves.T


def test_share_and_response_equal_their_definition(weight):
    spectra = np.abs([[spectrum(kernel) for kernel in row] for row in weight.double().numpy()])
    np.testing.assert_allclose(frequency_response(weight).numpy(), spectra.mean(axis=(0, 1)), rtol=1e-5)
    down, across = np.ogrid[-16:16, -16:16]
    for radius in (4, 12, 16.5):
        high = np.hypot(down, across) >= radius
        expected = (spectra**2 * high).sum(axis=(2, 3)) / (spectra**2).sum(axis=(2, 3))
        np.testing.assert_allclose(high_frequency_share(weight, radius).numpy(), expected, rtol=1e-4)


@given(st.integers(0, 2**31), st.floats(0, 30), st.integers(1, 7), st.integers(1, 7), st.sampled_from((1e-6, 1, 1e6)))
def test_shares_are_shares_and_fall_with_the_radius(seed, radius, height, width, scale):
    weight = scale * torch.randn(3, 2, height, width, generator=torch.Generator().manual_seed(seed))
    share = high_frequency_share(weight, radius)
    assert (share.shape, share.dtype) == ((3, 2), weight.dtype)
    assert ((share >= 0) & (share <= 1)).all()
    assert (high_frequency_share(weight, radius + 1) <= share + 1e-6).all()
    torch.testing.assert_close(high_frequency_share(weight, 0), torch.ones(3, 2))


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that anything returns."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.count = max([self.count, *(leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor))])
        return made


def test_shares_of_a_wide_layer_take_no_spectrum_of_each_plane():
    """Those of a layer of 512 x 512 planes would take 2 GiB."""
    weight = torch.randn(128, 64, 3, 3)
    with Largest() as largest:
        share = high_frequency_share(weight, 12)
    assert share.mean().item() == pytest.approx(587 / 1024, abs=0.01)
    assert largest.count == weight.numel()


def test_shares_of_known_kernels():
    single = F.pad(torch.ones(1, 1, 1, 1), (1, 1, 1, 1))
    assert high_frequency_share(single, 12).item() == pytest.approx(1 - 437 / 1024, abs=1e-6)
    assert round(high_frequency_share(single, 12).item(), 2) == 0.57
    assert high_frequency_share(single, 0).item() == pytest.approx(1)
    assert high_frequency_share(single, 23).item() == 0
    assert high_frequency_share(torch.zeros(1, 1, 3, 3), 12).item() == 0
    smooth, rough = torch.ones(1, 1, 3, 3), torch.tensor([[[[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]]]])
    assert high_frequency_share(smooth, 12) < 0.2 < 0.8 < high_frequency_share(rough, 12)
    assert frequency_response(smooth)[16, 16].item() == pytest.approx(9)
    assert frequency_response(rough)[0, 0].item() == pytest.approx(9)


def test_bad_weights():
    for measure in [smoothness_penalty, roughness, frequency_response, lambda weight: high_frequency_share(weight, 8)]:
        for shape in ((3, 3), (1, 3, 3), (1, 1, 33, 33), (0, 3, 3, 3)):
            with pytest.raises(ValueError, match=r"expected weights \(out, in, k, k\)"):
                measure(torch.zeros(shape))
    for measure in (smoothness_penalty, roughness):  # single weights have no neighbours
        with pytest.raises(ValueError, match="k from 2 to 32"):
            measure(torch.ones(2, 2, 1, 1))


# The second and the third compute the weight anew before each pass, so that a change of it would be lost.
@pytest.mark.parametrize(
    "computed",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.spectral_norm,
        lambda layer: prune.random_unstructured(layer, "weight", amount=0.2),
    ],
)
@pytest.mark.parametrize("change", [lambda model: smooth_kernels(model, 1), lambda model: filter_kernels(model, 4)])
def test_weights_that_are_computed_are_refused(change, computed):
    model = nn.Sequential(computed(nn.Conv2d(3, 4, 3)))
    model(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="parametrised"):
        change(model)


def test_a_shared_weight_is_smoothed_once():
    model = nn.Sequential(nn.Conv2d(3, 3, 3, bias=False), nn.Conv2d(3, 3, 3, bias=False))
    model[1].weight = model[0].weight
    smoothed = smooth_kernels(model, 0.5, layers="all")
    assert torch.equal(smoothed[1].weight, smooth_kernels(model[:1], 0.5)[0].weight)


def test_another_default_device_changes_no_share():
    weight = torch.rand(4, 3, 3, 3)
    expected = high_frequency_share(weight, 8)
    torch.set_default_device("meta")
    try:
        share = high_frequency_share(weight, 8)
    finally:
        torch.set_default_device(None)
    assert torch.equal(share, expected)
