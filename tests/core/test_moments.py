"""Matched moments against a network that is worked out by hand, and against BatchNorm itself."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import hfclib
from hfclib.conditions import depends_on_batch
from hfclib.models import resnet18, resnet32
from hfclib.moments import EPS, matched, norm_places, recalibrate_batchnorm


def by_hand():
    """Two 1x1 convolutions of one channel, 2x + 1 and then -3x + 5, with a ReLU between; logits (mean, 2 - mean)."""

    class TwoLayers(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
            for layer, weight, bias in ((self.first, 2.0, 1.0), (self.second, -3.0, 5.0)):
                nn.init.constant_(layer.weight, weight)
                nn.init.constant_(layer.bias, bias)

        def forward(self, images):
            mean = self.second(torch.relu(self.first(images))).mean(dim=(1, 2, 3))
            return torch.stack([mean, 2 - mean], dim=1)

    return TwoLayers()


def test_a_network_worked_out_by_hand():
    # Pixels 0 and 1 have mean .5 and sd .5: after the first layer 1 and 3 (mean 2, sd 1), after the second 2 and -4
    # (mean -1, sd 3). In the batch each image is constant, 10 and 14: 21 and 29 are replaced by 1 and 3, whose images
    # 2 and -4 have the reference's moments already. At the pixels, 10 and 14 are replaced by 0 and 1: the same.
    reference = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(2, 1, 1, 2)
    batch = torch.tensor([10.0, 14.0]).view(2, 1, 1, 1).expand(2, 1, 1, 2)
    model = by_hand()
    help_everywhere = matched(model, reference)
    (first, second) = help_everywhere.moments.values()
    assert [float(one) for one in (*first, *second)] == pytest.approx([2, 1, -1, 3], abs=1e-5)
    for where in ("all", "first", "input"):
        assert matched(model, reference, where=where)(batch)[:, 0].tolist() == pytest.approx([2, -4], abs=1e-4)
    assert model(batch)[:, 0].tolist() == [5 - 3 * 21, 5 - 3 * 29]
    labels = torch.tensor([0, 1])  # mean 2 beats 0; without matching both images belong to class 1
    assert hfclib.accuracy(help_everywhere, batch, labels) == 1
    assert hfclib.accuracy(model, batch, labels) == 0.5


def test_each_place_is_standardised_over_images_and_pixels():
    torch.manual_seed(1)
    model, reference, batch = resnet18(width=4), torch.rand(30, 3, 8, 8), 0.1 * torch.rand(7, 3, 8, 8) - 0.4
    helped, seen = matched(model, reference), {}
    # What matching leaves is what the module after the convolution gets.
    handles = [
        norm.register_forward_pre_hook(lambda _, maps, conv=conv: seen.update({conv: maps[0]}))
        for block in model.blocks
        for conv, norm in ((block.conv1, block.norm1), (block.conv2, block.norm2))
    ]
    helped.eval()(batch)
    for handle in handles:
        handle.remove()
    assert len(seen) == 16
    for place, maps in seen.items():
        mean, std = helped.moments[place]
        maps = maps.detach().double().numpy()
        assert np.allclose(maps.mean(axis=(0, 2, 3)), mean, atol=1e-4)
        before_eps = np.sqrt(np.maximum(std.double().numpy() ** 2 - EPS, 0))
        assert np.allclose(maps.std(axis=(0, 2, 3)), before_eps, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("build", [lambda norm: resnet18(4, norm), resnet32], ids=["18", "32"])
def test_a_place_for_each_batchnorm_layer(build):
    normed = [module for module in build("batch").modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norm_places(build("none"))) == len(normed)
    reference = torch.rand(6, 3, 32, 32)
    assert len(matched(build("none"), reference).moments) == len(normed)


def test_the_reference_batch_itself_is_left_as_it_is_and_so_is_the_network():
    model, images = resnet18(width=4, dropout=0.5).train(), torch.rand(20, 3, 16, 16)
    model.conv1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = matched(model, images)
    expected = hfclib.logits(model, images)
    assert torch.allclose(hfclib.logits(found, images), expected, atol=1e-4)
    assert torch.equal(hfclib.logits(model, images), expected)
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training
    assert not model.conv1.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_help_made_in_inference_mode_can_be_attacked_and_a_network_may_change_its_input():
    class InPlace(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model(images.mul_(2))

    model, images = resnet18(width=4), torch.rand(6, 3, 8, 8) / 2
    before = images.clone()
    with torch.inference_mode():
        helped = matched(InPlace(model), images)
    expected = matched(model, 2 * before)
    assert torch.equal(images, before)
    matched(InPlace(model), before.clone(), source=images)
    assert torch.equal(images, before)
    for moments, others in zip(helped.moments.values(), expected.moments.values(), strict=True):
        torch.testing.assert_close(moments, others)
    assert not any(moment.is_inference() or moment.requires_grad for pair in helped.moments.values() for moment in pair)
    assert not torch.equal(hfclib.pgd(helped, images, torch.zeros(6, dtype=torch.int64)), images)


def test_first_is_the_stem_and_the_first_stage():
    model = resnet18(width=4)
    found = matched(model, torch.rand(4, 3, 32, 32), where="first")
    assert list(found.moments) == [
        model.conv1,
        *(getattr(block, f"conv{i}") for block in model.blocks[:2] for i in (1, 2)),
    ]


def test_what_is_refused_and_hooks_are_gone_after_an_error():
    images, model = torch.rand(4, 3, 8, 8), resnet18(width=4)
    with pytest.raises(ValueError, match="one of all, first, input, got 'last'"):
        matched(model, images, where="last")
    with pytest.raises(ValueError, match="without BatchNorm"):
        matched(resnet18(width=4, norm="batch"), images)
    for network, reference in ((nn.Flatten(), images), (model, images[:0])):
        with pytest.raises(ValueError, match="expected reference images and convolutions"):
            matched(network, reference)
    helped = matched(model, images)
    with pytest.raises(ValueError, match="at least 2 images"):
        hfclib.accuracy(helped, images[:1], torch.tensor([0]))
    with pytest.raises(RuntimeError):
        helped(torch.rand(4, 5, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch, about its own compiler
def test_a_compiled_network_gets_the_same_help_before_and_after_its_first_pass():
    torch.manual_seed(0)
    model, reference, batch = resnet18(width=4).eval(), torch.rand(8, 3, 8, 8), 0.1 * torch.rand(8, 3, 8, 8)
    with torch.no_grad():
        expected = matched(model, reference)(batch)
        compiled = torch.compile(model, backend="eager")
        for _ in range(2):
            torch.testing.assert_close(matched(compiled, reference)(batch), expected)
            torch.testing.assert_close(compiled(batch), model(batch))


def test_a_convolution_that_no_pass_reaches_gives_no_help():
    model = by_hand()
    model.forward = lambda images: images.mean(dim=(2, 3)).expand(-1, 2)
    with pytest.raises(ValueError, match="convolutions that run, got none"):
        matched(model, torch.rand(3, 1, 2, 2))


def test_a_loader_gives_the_number_of_the_tensors():
    torch.manual_seed(0)
    model, images, labels = resnet18(width=4).eval(), torch.rand(250, 3, 8, 8), torch.randint(10, (250,))
    helped = matched(model, torch.rand(20, 3, 8, 8))
    loader = list(zip(images.split(10), labels.split(10), strict=True))
    options = {"radii": [2], "colour": [0.5] * 3}
    pd.testing.assert_frame_equal(
        hfclib.band_accuracy(helped, loader, **options), hfclib.band_accuracy(helped, images, labels, **options)
    )
    assert hfclib.accuracy(helped, loader) == hfclib.accuracy(helped, images, labels)
    alone = [*loader[:20], (images[200:201], labels[200:201])]  # joins the batch before it; so do batches of one image
    expected = hfclib.accuracy(helped, images[:201], labels[:201])
    assert hfclib.accuracy(helped, alone) == expected
    assert hfclib.accuracy(helped, zip(images[:201].split(1), labels[:201].split(1), strict=True)) == expected


def test_networks_that_cut_images_up_are_matched_by_the_moments_of_all_maps():
    class OneChannelAtATime(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, images):
            return self.conv(images.flatten(0, 1)[:, None]).mean(dim=(2, 3)).unflatten(0, (len(images), 3)).flatten(1)

    torch.manual_seed(0)
    model, reference = OneChannelAtATime(), torch.rand(7, 3, 8, 8)
    maps = model.conv(reference.flatten(0, 1)[:, None]).transpose(0, 1).flatten(1).double()
    mean, std = matched(model, reference).moments[model.conv]
    torch.testing.assert_close(mean.double(), maps.mean(dim=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(std.double(), (maps.var(dim=1, correction=0) + 1e-5).sqrt(), rtol=0, atol=1e-6)


def test_a_reference_that_is_no_images_is_refused():
    model, images = resnet18(width=4), torch.rand(6, 3, 8, 8)
    for wrong in (images * 255, (images - 0.5) / 0.25, images.half() * 2, images.clone().fill_(torch.nan)):
        with pytest.raises(ValueError, match=r"expected images in \[0, 1\], got values from"):
            matched(model, wrong)


def test_the_moments_are_part_of_the_state():
    torch.manual_seed(0)
    model, batch = resnet18(width=4).eval(), torch.rand(9, 3, 8, 8)
    first, second = (matched(model, torch.rand(6, 3, 8, 8) ** power) for power in (1, 3))
    states = [{name: value.clone() for name, value in one.state_dict().items()} for one in (first, second)]
    assert states[0].keys() - {f"model.{name}" for name in model.state_dict()} == {
        f"{moment}_{number}" for moment in ("mean", "std") for number in range(len(norm_places(model)))
    }
    assert not torch.equal(states[0]["std_3"], states[1]["std_3"])
    expected = first(batch)
    assert not torch.allclose(second(batch), expected, atol=1e-3)
    second.load_state_dict(states[0])
    torch.testing.assert_close(second(batch), expected)
    again = copy.deepcopy(first)
    assert set(again.moments) == set(norm_places(again.model))
    torch.testing.assert_close(again(batch), expected)
    assert {moment.dtype for pair in first.double().moments.values() for moment in pair} == {torch.float64}
    torch.testing.assert_close(first(batch.double()).float(), expected, rtol=1e-3, atol=1e-3)


def test_a_wrapped_network_has_the_places_of_its_own():
    network = resnet32()
    assert norm_places(nn.Sequential(hfclib.LowPass(8), network)) == norm_places(network)


def test_a_convolution_that_runs_twice_is_refused():
    model = by_hand()
    model.second = model.first
    with pytest.raises(ValueError, match="run once per pass"):
        matched(model, torch.rand(4, 1, 3, 3))
    matched(model, torch.rand(4, 1, 3, 3), where="input")


# ---- the moments of fixed images in place of the batch's


def test_fixed_moments_worked_out_by_hand_need_no_batch():
    # As in the network worked out by hand above: the source's images 10 and 14 become 2 and -4. Pixels of 12, midway,
    # are midway after the first layer too, 2, and so -1 in the end; alone they are the same.
    reference = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(2, 1, 1, 2)
    source = torch.tensor([10.0, 14.0]).view(2, 1, 1, 1).expand(2, 1, 1, 2)
    model = by_hand()
    for where in ("all", "input"):
        fixed = matched(model, reference, where=where, source=source)
        assert fixed(torch.full((1, 1, 1, 2), 12.0)).tolist() == [pytest.approx([-1, 3], abs=1e-4)]
        assert hfclib.accuracy(fixed, source[1:], torch.tensor([1])) == 1


@pytest.mark.parametrize("build", [lambda norm: resnet18(4, norm), resnet32], ids=["18", "32"])
def test_fixed_moments_are_those_of_the_source_as_a_batch_and_leave_an_image_to_itself(build):
    torch.manual_seed(0)
    reference, source, others = torch.rand(12, 3, 16, 16), 0.2 * torch.randn(9, 3, 16, 16), torch.rand(5, 3, 16, 16)
    model, normed = build("none"), build("batch").train()
    # Each layer's moments are taken with those before it corrected, so one pass as a batch gives the same logits.
    by_batch, fixed = matched(model, reference), matched(model, reference, source=source)
    expected = hfclib.logits(by_batch, source)
    pairs = [
        (fixed, expected),
        (recalibrate_batchnorm(normed, source), hfclib.logits(normed, source, bn_stats="batch")),
    ]
    for network, of_the_batch in pairs:
        torch.testing.assert_close(hfclib.logits(network, source), of_the_batch, rtol=1e-4, atol=1e-4)
        assert not depends_on_batch(network)
        if network is fixed:
            torch.testing.assert_close(hfclib.logits(fixed, others, bn_stats="batch"), hfclib.logits(fixed, others))
        beside = hfclib.logits(network, torch.cat([source[:1], others]))[:1]
        torch.testing.assert_close(hfclib.logits(network, source[:1]), beside, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(beside, of_the_batch[:1], rtol=1e-4, atol=1e-4)
    assert depends_on_batch(by_batch)
    for moments, others in zip(fixed.moments.values(), by_batch.moments.values(), strict=True):
        torch.testing.assert_close(moments, others)  # of the reference
    assert normed.training
    assert all(float(norm.running_mean.abs().max()) == 0 for norm in normed.modules() if hasattr(norm, "running_mean"))


def test_a_copy_is_recalibrated_without_dropout_and_hooks_are_gone():
    torch.manual_seed(0)
    model, source = resnet18(4, "batch", dropout=0.5, dropout_at="map").train(), torch.rand(6, 3, 8, 8)
    first, second = (recalibrate_batchnorm(model, source) for _ in range(2))
    assert not first.training
    assert not any(module._forward_pre_hooks for module in first.modules())
    torch.testing.assert_close(first.state_dict(), second.state_dict())
    with torch.inference_mode():
        inside = recalibrate_batchnorm(model, source)
    assert not torch.equal(hfclib.pgd(inside, source, torch.zeros(6, dtype=torch.int64)), source)


def test_fixed_moments_are_part_of_the_state():
    torch.manual_seed(0)
    model, images = resnet18(width=4).eval(), torch.rand(9, 3, 8, 8)
    first, second = (matched(model, images**power, source=images**power - 0.3) for power in (1, 3))
    expected, state = first(images), {name: value.clone() for name, value in first.state_dict().items()}
    kinds = ("mean", "std", "source_mean", "source_var")
    names = {f"{kind}_{number}" for kind in kinds for number in range(len(norm_places(model)))}
    assert state.keys() - {f"model.{name}" for name in model.state_dict()} == names
    assert not torch.allclose(second(images), expected, atol=1e-3)
    second.load_state_dict(state)
    torch.testing.assert_close(second(images), expected)
    torch.testing.assert_close(copy.deepcopy(first)(images[:1]), expected[:1], rtol=1e-4, atol=1e-4)


def test_a_bad_source_and_networks_that_cannot_be_recalibrated_are_refused():
    images, plain, normed = torch.rand(4, 3, 8, 8), resnet18(width=4), resnet18(4, "batch")
    for change in (
        lambda source: matched(plain, images, source=source),
        lambda source: recalibrate_batchnorm(normed, source),
    ):
        for source in (images * 255, images.clone().fill_(torch.nan)):
            with pytest.raises(ValueError, match=r"expected bands in \[-100, 100\]"):
                change(source)
        with pytest.raises(ValueError, match="2 source images or more to take moments of, got 1"):
            change(images[:1])
    with pytest.raises(ValueError, match=r"of one shape, got \(3, 4, 4\) and \(3, 8, 8\)"):
        matched(plain, images, source=images[..., ::2, ::2])
    with pytest.raises(ValueError, match="expected a network with BatchNorm"):
        recalibrate_batchnorm(plain, images)
    norm = nn.BatchNorm2d(3)
    for network in (nn.Sequential(norm, norm), nn.ModuleDict({"used": norm, "idle": nn.BatchNorm2d(3)})):
        if isinstance(network, nn.ModuleDict):
            network.forward = norm.forward
        with pytest.raises(ValueError, match="run once per pass"):
            recalibrate_batchnorm(network, images)
    with pytest.raises(ValueError, match="keeps running averages"):
        recalibrate_batchnorm(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), images)
