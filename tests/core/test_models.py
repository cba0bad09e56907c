"""hfclib.models: sizes, first weights, where dropout and normalisation happen, and the authors' shortcut."""

import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hfclib import resnet18, resnet32
from hfclib.kernels import convolutions
from hfclib.models import BasicBlock, PreactBlock, alexnet, lenet, norm_layer, vgg11
from hfclib.runs.store import stored_weights
from hfclib.training.recipe import Recipe

SMALL = {"width": 4}
RESNETS = [(resnet18, SMALL), (resnet32, {})]
PLAIN = [(lenet, {}), (alexnet, {}), *[(vgg11, {"width": 8, "norm": norm}) for norm in ("none", "batch", "group")]]
NETS = [*[(net, options | {"norm": norm}) for net, options in RESNETS for norm in ("none", "batch", "group")], *PLAIN]
NORMS = nn.BatchNorm2d | nn.GroupNorm


def layers(network):
    """Convolutions but for the 1 x 1 ones of shortcuts, and linear layers."""
    found = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return [module for module in found if getattr(module, "kernel_size", None) != (1, 1)]


def test_numbers_of_parameters_and_layers():
    for make, parameters, count in [
        (resnet18, 11_169_162, 18),
        (lambda: resnet18(width=16), 700_266, 18),
        (resnet32, 461_882, 32),
        (lenet, 62_006, 5),
        (alexnet, 2_472_266, 6),
        (vgg11, 9_225_610, 9),
        (lambda: vgg11(16), 578_410, 9),
    ]:
        network = make()
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters
        assert len(layers(network)) == count


@pytest.mark.parametrize(("net", "options"), NETS)
def test_weights_are_xavier_uniform_and_biases_zero_and_every_parameter_takes_part(net, options):
    network, norm = net(num_classes=7, **options), options.get("norm", "none")
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            area = math.prod(module.weight.shape[2:])
            limit = math.sqrt(6 / (module.weight.shape[1] * area + module.weight.shape[0] * area))
            assert 0.9 * limit < module.weight.abs().max() <= limit, name
            assert module.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.2), name
            assert module.bias is None or not module.bias.any(), name
        if isinstance(module, NORMS):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert not module.bias.any()
    # Convolutions have a bias only without a norm, and never in resnet32.
    assert {conv.bias is not None for conv in convolutions(network, "all")} == {norm == "none" and net is not resnet32}
    assert any(isinstance(module, NORMS) for module in network.modules()) == (norm != "none")
    assert layers(network)[-1].bias is not None
    logits = network(torch.rand(8, 3, 32, 32))
    assert (logits.shape, logits.dtype) == ((8, 7), torch.float32)
    logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_group_norm_has_up_to_eight_groups_that_divide_the_channels():
    for width in (4, 6, 12, 16, 64):
        network = resnet18(width, "group")
        groups = {(m.num_channels, m.num_groups) for m in network.modules() if isinstance(m, nn.GroupNorm)}
        assert groups == {(width * k, math.gcd(8, width * k)) for k in (1, 2, 4, 8)}


def test_group_norm_is_in_float32_and_keeps_the_type_of_the_maps():
    layer, maps = norm_layer("group", 16), torch.randn(2, 16, 4, 4)
    by_hand = maps.view(2, 8, -1)
    by_hand = (by_hand - by_hand.mean(2, keepdim=True)) / (by_hand.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(layer(maps), by_hand.view_as(maps), rtol=1e-4, atol=1e-5)
    assert torch.equal(layer(maps.bfloat16()), layer(maps.bfloat16().float()).bfloat16())


@pytest.mark.parametrize(("net", "options"), RESNETS)
def test_any_size_of_picture_and_kernel(net, options):
    with torch.no_grad():
        for height, width in [(32, 32), (28, 28), (33, 33), (30, 50), (8, 8), (64, 40)]:
            assert net(**options)(torch.rand(2, 3, height, width)).shape == (2, 10)
        for stem_kernel in (1, 3, 5, 7):
            network = net(stem_kernel=stem_kernel, **options)
            assert network.conv1.weight.shape[1:] == (3, stem_kernel, stem_kernel)
            assert network.conv1(torch.rand(1, 3, 32, 30)).shape[-2:] == (32, 30)
            assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
            shrunk = network.blocks(torch.rand(1, network.conv1.out_channels, 32, 32))
            assert shrunk.shape[1:] == ((32, 4, 4) if net is resnet18 else (64, 8, 8))


def seen_by(network, module, images):
    """What `module` is given and what it returns when `network` looks at `images`."""
    seen = []
    hook = module.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    network(images)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("net", "options", "place", "dropping", "idle"),
    [
        (resnet18, SMALL, "features", "feature_dropout", "map_dropout"),
        (resnet32, {}, "map", "map_dropout", "feature_dropout"),
    ],
)
def test_dropout_is_where_it_was_asked_for_and_only_in_training(net, options, place, dropping, idle):
    network, images = net(dropout=0.5, dropout_at=place, **options), torch.rand(8, 3, 32, 32)
    given, dropped = seen_by(network.train(), getattr(network, dropping), images)
    assert given.ndim == (2 if place == "features" else 4)
    assert place == "features" or given.min() == 0  # after the last activation
    kept = dropped != 0
    assert 0.35 < kept[given != 0].float().mean() < 0.65
    torch.testing.assert_close(dropped[kept], 2 * given[kept])
    assert torch.equal(*seen_by(network, getattr(network, idle), images))
    assert torch.equal(*seen_by(network.eval(), getattr(network, dropping), images))


def test_dropout_by_default_is_where_each_source_has_it():
    assert (resnet18(dropout=0.5, **SMALL).feature_dropout.p, resnet18(dropout=0.5, **SMALL).map_dropout.p) == (0.5, 0)
    assert (resnet32(dropout=0.5).feature_dropout.p, resnet32(dropout=0.5).map_dropout.p) == (0, 0.5)


def test_resnet18_starts_with_convolution_and_relu(images):
    network = resnet18(**SMALL)
    given = seen_by(network, network.blocks, images)[0]
    torch.testing.assert_close(given, F.relu(F.conv2d(images, network.conv1.weight, network.conv1.bias, padding=1)))


def test_the_shortcut_of_a_narrow_network_is_a_strided_convolution():
    for channels in (4, 16):  # sliced by hand, and by PyTorch
        layer, images = BasicBlock(channels, 32, 2, "none").shortcut[0], torch.rand(3, channels, 7, 8)
        torch.testing.assert_close(layer(images), F.conv2d(images, layer.weight, layer.bias, stride=2))


TRAINED_NARROW = """
import torch
from hfclib import resnet18
torch.set_num_threads(1)
model, images = (one.to(memory_format=torch.channels_last) for one in (resnet18(4), torch.rand(64, 3, 32, 32)))
for _ in range(3):
    model(images).sum().backward()
"""


def test_a_narrow_network_is_trained_by_processors_without_avx512():
    # A gradient that writes beyond its memory ends the process.
    subprocess.run([sys.executable, "-c", TRAINED_NARROW], env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}, check=True)


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
    def normalised(x):
        return (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()

    block, images = PreactBlock(4, 4, 1, "batch").train(), torch.randn(8, 4, 6, 6)
    y = block.conv2(F.relu(normalised(block.conv1(F.relu(normalised(images))))))
    torch.testing.assert_close(block(images), images + y, rtol=1e-4, atol=1e-5)


def test_recipes_build_the_plain_networks_and_runs_store_them():
    for options, channels, kernel in [
        ({"network": "lenet"}, 6, 5),
        ({"network": "alexnet"}, 64, 11),
        ({"network": "vgg11", "width": 4}, 4, 3),
        ({"network": "vgg11", "width": 4, "norm": "batch"}, 4, 3),
    ]:
        model = Recipe("a").with_(**options).build().to(memory_format=torch.channels_last)
        (first,) = convolutions(model)
        assert first.weight.shape == (channels, 3, kernel, kernel)
        again = Recipe("a").with_(**options).build()
        again.load_state_dict(stored_weights(model))
        for name, tensor in again.state_dict().items():
            torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_bad_arguments():
    for make, error, message in [
        *[(lambda net=net: net(norm="layer"), ValueError, "norm, one of .*got 'layer'") for net in (resnet18, vgg11)],
        (lambda: resnet32(norm=None), ValueError, "norm, one of none, batch, group, got None"),
        (lambda: resnet18(dropout=-0.1), ValueError, "dropout probability"),
        (lambda: resnet18(dropout_at="input"), ValueError, "dropout_at, features or map, got 3 and 'input'"),
        (lambda: resnet18(width=16.0), TypeError, "tuple of ints"),
        *[(lambda bad=bad: resnet18(2, stem_kernel=bad), ValueError, "stem_kernel, an odd number") for bad in (0, 2)],
    ]:
        with pytest.raises(error, match=message):
            make()


def test_recipes_refuse_what_an_architecture_does_not_have():
    fields = {"dropout": 0.5, "dropout_at": "map", "stem_kernel": 5, "early_sizes": (16,), "norm": "batch"}
    for network in ("lenet", "alexnet", "vgg11"):
        for field, value in fields.items():
            if (network, field) != ("vgg11", "norm"):
                with pytest.raises(ValueError, match=f'expected {field}.*with network "{network}", got'):
                    Recipe("a").with_(network=network, **{field: value})
