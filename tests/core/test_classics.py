"""hfclib.models: the forms of LeNet, AlexNet and VGG-11 for 32x32 images, their sizes and first weights."""

import math

import pytest
import torch
from torch import nn

from hfclib.kernels import convolutions
from hfclib.models import Normalize, alexnet, count_parameters, lenet, vgg11
from hfclib.runs.store import _fill, stored_weights
from hfclib.training.recipe import Recipe

NETS = [(lenet, {}), (alexnet, {}), (vgg11, {"width": 4}), (vgg11, {"width": 4, "norm": "batch"})]
NETS.append((vgg11, {"width": 8, "norm": "group"}))


@pytest.mark.parametrize(
    ("network", "parameters", "layers"),
    [(lenet, 62_006, 5), (alexnet, 2_472_266, 6), (vgg11, 9_225_610, 9), (lambda: vgg11(16), 578_410, 9)],
)
def test_sizes(network, parameters, layers):
    model = network()
    assert count_parameters(model) == parameters
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == layers


@pytest.mark.parametrize(("net", "options"), NETS)
def test_every_parameter_takes_part(net, options):
    model = net(num_classes=7, **options)
    logits = model(torch.rand(8, 3, 32, 32))
    assert logits.shape == (8, 7)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("net", "options"), NETS)
def test_weights_are_xavier_uniform_and_biases_zero(net, options):
    for name, module in net(**options).named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            area = math.prod(module.weight.shape[2:])
            limit = math.sqrt(6 / (module.weight.shape[1] * area + module.weight.shape[0] * area))
            assert 0.9 * limit < module.weight.abs().max() <= limit, name
            assert module.bias is None or not module.bias.any(), name


def test_convolutions_of_vgg_have_a_bias_only_without_a_norm():
    for norm, layer in (("none", None), ("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)):
        model = vgg11(8, norm)
        assert {conv.bias is None for conv in convolutions(model, "all")} == {norm != "none"}
        assert sum(layer is not None and isinstance(module, layer) for module in model.modules()) == 8 * (
            norm != "none"
        )


@pytest.mark.parametrize(("net", "options"), NETS)
def test_normalisation_comes_first_and_then_the_first_convolution(net, options):
    images = torch.rand(3, 3, 32, 32)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    plain, normalising = net(**options).eval(), net(normalize=Normalize(mean, std), **options).eval()
    normalising.load_state_dict(plain.state_dict())
    by_hand = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(normalising(images), plain(by_hand))
    assert convolutions(plain) == [plain.features[0]]
    assert plain.features[0].in_channels == 3


@pytest.mark.parametrize(
    ("options", "channels", "kernel"),
    [
        ({"arch": "lenet"}, 6, 5),
        ({"arch": "alexnet"}, 64, 11),
        ({"arch": "vgg11", "width": 4}, 4, 3),
        ({"arch": "vgg11", "width": 4, "norm": "batch"}, 4, 3),
    ],
)
def test_recipes_build_them_and_runs_store_them(options, channels, kernel):
    model = Recipe("a", **options).build().to(memory_format=torch.channels_last)
    (first,) = convolutions(model)
    assert first.weight.shape == (channels, 3, kernel, kernel)
    weights = stored_weights(model)
    again = Recipe("a", **options).build()
    _fill(again, weights)
    assert all(torch.isfinite(tensor).all() for tensor in again.state_dict().values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vgg11(norm="layer"), "norm, one of none, batch, group, got 'layer'"),
        (lambda: vgg11(width=0), "width, a whole number of at least 1, got 0"),
        *[(lambda net=net: net(num_classes=0), "num_classes") for net in (lenet, alexnet, vgg11)],
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("arch", ["lenet", "alexnet", "vgg11"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("dropout", 0.5), ("dropout_at", "map"), ("stem_kernel", 5), ("early_sizes", (16,)), ("norm", "batch")],
)
def test_what_an_architecture_does_not_have_is_refused(arch, field, value):
    if (arch, field) == ("vgg11", "norm"):
        assert Recipe("a", arch=arch, norm=value).norm == value
        return
    with pytest.raises(ValueError, match=f'expected {field} = .* with arch "{arch}", got'):
        Recipe("a", arch=arch, **{field: value})
