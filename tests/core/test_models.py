"""hfclib.models: sizes, first weights, where dropout and normalisation happen, and the authors' shortcut."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hfclib import resnet18, resnet32
from hfclib.models import Normalize, PreactBlock, count_parameters, norm_layer

SMALL = {"width": 4}
NETS = [(resnet18, SMALL), (resnet32, {})]


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (lambda: resnet18(), 11_169_162),
        (lambda: resnet18(width=16), 700_266),
        (lambda: resnet32(), 461_882),
    ],
)
def test_number_of_parameters(model, parameters):
    network = model()
    assert count_parameters(network) == parameters
    assert parameters == sum(len(p.flatten()) for p in network.parameters())


def test_sizes_that_the_paper_names():
    assert round(count_parameters(resnet18()) / 1e6, 1) == 11.2
    assert round(count_parameters(resnet32()) / 1e6, 2) == 0.46


def test_count_leaves_out_frozen_parameters():
    network = resnet18(**SMALL)
    before = count_parameters(network)
    network.fc.weight.requires_grad_(False)
    assert count_parameters(network) == before - 10 * 32


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize(("net", "options"), [(resnet18, {"width": 16}), (resnet32, {})])
def test_weights_are_xavier_uniform_and_biases_zero(net, options, norm):
    network = net(norm=norm, **options)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            area = math.prod(module.weight.shape[2:])
            limit = math.sqrt(6 / (module.weight.shape[1] * area + module.weight.shape[0] * area))
            assert module.weight.abs().max() <= limit, name
            assert module.weight.abs().max() > 0.95 * limit, name
            assert module.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.1), name
            assert module.bias is None or not module.bias.any(), name
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert not module.bias.any()


@pytest.mark.parametrize(
    ("network", "biased", "normed"),
    [
        (lambda: resnet18(**SMALL), True, False),
        (lambda: resnet18(norm="batch", **SMALL), False, True),
        (lambda: resnet32(), False, False),
        (lambda: resnet32(norm="batch"), False, True),
        (lambda: resnet18(norm="group", **SMALL), False, True),
    ],
)
def test_convolutions_have_a_bias_only_in_a_resnet18_without_a_norm(network, biased, normed):
    network = network()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert {conv.bias is not None for conv in convolutions} == {biased}
    assert any(isinstance(module, nn.BatchNorm2d | nn.GroupNorm) for module in network.modules()) == normed
    assert network.fc.bias is not None


@pytest.mark.parametrize("width", [4, 6, 12, 16, 64])
def test_group_norm_has_up_to_eight_groups_that_divide_the_channels(width):
    for name, module in resnet18(width, norm="group").named_modules():
        assert not isinstance(module, nn.BatchNorm2d), name
        if isinstance(module, nn.GroupNorm):
            assert module.num_groups == max(n for n in (1, 2, 4, 8) if module.num_channels % n == 0), name


def test_group_norm_is_in_float32_and_keeps_the_type_of_the_maps():
    layer, maps = norm_layer("group", 16), torch.randn(2, 16, 4, 4)
    by_hand = maps.view(2, 8, -1)
    by_hand = (by_hand - by_hand.mean(2, keepdim=True)) / (by_hand.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(layer(maps), by_hand.view_as(maps), rtol=1e-4, atol=1e-5)
    assert torch.equal(layer(maps.bfloat16()), layer(maps.bfloat16().float()).bfloat16())


def test_group_norm_treats_each_image_by_itself(images):
    network = resnet18(norm="group", **SMALL).train()
    torch.testing.assert_close(network(images)[:1], network(images[:1]), rtol=1e-4, atol=1e-5)
    assert set(network.state_dict()) == {
        name for name in resnet18(norm="batch", **SMALL).state_dict() if "running" not in name and "num_" not in name
    }


def test_resnet18_has_as_many_layers_as_its_name_says():
    layers = [m for m in resnet18(**SMALL).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    projections = [m for m in layers if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert len(layers) - len(projections) == 18
    assert len(projections) == 3


def test_resnet32_has_as_many_layers_as_its_name_says():
    layers = [m for m in resnet32().modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 32
    assert sorted({m.out_channels for m in layers if isinstance(m, nn.Conv2d)}) == [16, 32, 64]


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize(("net", "options"), NETS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 28), (33, 33), (30, 50), (8, 8), (64, 40)])
def test_shape_of_the_logits(net, options, norm, height, width):
    network = net(norm=norm, num_classes=7, **options).eval()
    with torch.no_grad():
        logits = network(torch.rand(2, 3, height, width))
    assert logits.shape == (2, 7)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("stem_kernel", [1, 3, 5, 7])
@pytest.mark.parametrize(("net", "options"), NETS)
def test_the_first_layer_keeps_the_size_of_the_picture(net, options, stem_kernel):
    network = net(stem_kernel=stem_kernel, **options)
    assert network.conv1.weight.shape[1:] == (3, stem_kernel, stem_kernel)
    assert network.conv1(torch.rand(1, 3, 32, 30)).shape[-2:] == (32, 30)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("net", "options"), NETS)
def test_feature_maps_shrink_to_a_quarter_or_an_eighth(net, options):
    network, sizes = net(**options), []
    network.blocks.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    network(torch.rand(1, 3, 32, 32))
    assert sizes == [(32, 4, 4) if net is resnet18 else (64, 8, 8)]


@pytest.mark.parametrize(("net", "options"), NETS)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_every_parameter_takes_part(net, options, norm):
    network = net(norm=norm, **options)
    network(torch.rand(4, 3, 32, 32)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def seen_by(network, module, images):
    """What `module` is given and what it returns when `network` looks at `images`."""
    seen = []
    hook = module.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    network(images)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(("net", "options"), NETS)
@pytest.mark.parametrize(
    ("place", "dropping", "idle"),
    [("features", "feature_dropout", "map_dropout"), ("map", "map_dropout", "feature_dropout")],
)
def test_dropout_is_where_it_was_asked_for_and_only_in_training(net, options, place, dropping, idle):
    network, images = net(dropout=0.5, dropout_at=place, **options), torch.rand(8, 3, 32, 32)
    given, dropped = seen_by(network.train(), getattr(network, dropping), images)
    assert given.ndim == (2 if place == "features" else 4)
    kept = dropped != 0
    assert 0.35 < kept[given != 0].float().mean() < 0.65
    torch.testing.assert_close(dropped[kept], 2 * given[kept])
    assert torch.equal(*seen_by(network, getattr(network, idle), images))
    assert torch.equal(*seen_by(network.eval(), getattr(network, dropping), images))


@pytest.mark.parametrize(("net", "options"), NETS)
def test_the_dropped_map_is_what_the_last_layer_averages(net, options):
    network, seen = net(dropout=0.5, dropout_at="map", norm="batch", **options).train(), []
    for module in (network.map_dropout, network.fc):
        module.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    network(torch.rand(8, 3, 32, 32))
    (given, dropped), (features, _) = seen
    assert given.min() == 0  # after the last activation
    torch.testing.assert_close(features, dropped.mean(dim=(2, 3)))


def test_dropout_by_default_is_where_each_source_has_it():
    assert resnet18(dropout=0.5, **SMALL).feature_dropout.p == 0.5
    assert resnet18(dropout=0.5, **SMALL).map_dropout.p == 0
    assert resnet32(dropout=0.5).map_dropout.p == 0.5
    assert resnet32(dropout=0.5).feature_dropout.p == 0


@pytest.mark.parametrize(("net", "options"), NETS)
def test_normalisation_is_the_first_module_and_in_pixel_units(net, options, images):
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    plain, normalising = net(**options), net(normalize=Normalize(mean, std), **options)
    assert isinstance(next(normalising.children()), Normalize)
    normalising.load_state_dict(plain.state_dict())  # the constants are settings, not weights
    by_hand = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(normalising.normalize(images), by_hand)
    torch.testing.assert_close(normalising(images), plain(by_hand))
    assert not torch.allclose(normalising(images), plain(images))


@pytest.mark.parametrize(("net", "options"), NETS)
def test_pixels_stay_as_they_are_by_default(net, options, images):
    network = net(**options)
    assert isinstance(next(network.children()), Normalize)
    given, returned = seen_by(network, network.normalize, images)
    assert torch.equal(given, returned)
    assert torch.equal(given, images)


def test_resnet18_starts_with_convolution_and_relu(images):
    network = resnet18(**SMALL)
    given = seen_by(network, network.blocks, images)[0]
    torch.testing.assert_close(given, F.relu(F.conv2d(images, network.conv1.weight, network.conv1.bias, padding=1)))


def test_shortcut_of_the_authors_net_is_an_average_pool_and_zero_channels():
    block, images = PreactBlock(6, 16, 2, "none"), torch.rand(2, 6, 8, 10)
    nn.init.zeros_(block.conv2.weight)
    by_hand = torch.zeros(2, 16, 4, 5)
    for row in range(4):
        for column in range(5):
            square = images[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            by_hand[:, 5:11, row, column] = square.mean(dim=(2, 3))
    torch.testing.assert_close(block(images), by_hand)


def test_blocks_of_the_authors_net_normalise_before_they_convolve():
    block, images = PreactBlock(4, 4, 1, "batch").train(), torch.randn(8, 4, 6, 6)
    y = block.conv1(
        F.relu(
            (images - images.mean((0, 2, 3), keepdim=True))
            / (images.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
        )
    )
    y = block.conv2(
        F.relu((y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt())
    )
    torch.testing.assert_close(block(images), images + y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: resnet18(norm="layer"), "norm, one of none, batch, group, got 'layer'"),
        (lambda: resnet32(norm=None), "norm, one of none, batch, group, got None"),
        (lambda: resnet18(dropout=1.0), r"dropout in \[0, 1\), got 1.0"),
        (lambda: resnet32(dropout=-0.1), "dropout in"),
        (lambda: resnet18(dropout=math.nan), "dropout in"),
        (lambda: resnet18(dropout_at="input"), "dropout_at 'features' or 'map', got 'input'"),
        (lambda: resnet18(width=0), "width, a whole number of at least 1, got 0"),
        (lambda: resnet18(width=16.0), "width, a whole number"),
        (lambda: resnet18(width="16"), "width, a whole number"),
        (lambda: resnet18(num_classes=0), "num_classes"),
        *[
            (lambda bad=bad: resnet18(width=2, stem_kernel=bad), "stem_kernel, an odd whole number of at least 1")
            for bad in (0, 2, -3, 3.0, True)
        ],
        (lambda: Normalize((0.5,), (0.0,)), "positive std"),
        (lambda: Normalize((0.5,), (math.nan,)), "positive std"),
        (lambda: Normalize((0.5, 0.5), (1.0,)), "as many positive std as mean"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
