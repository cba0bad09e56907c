"""hfclib.frequency: the split against NumPy and a hand-made DFT, its properties, its gradients and its refusals."""

import io
import math
import warnings

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from hfclib import BandPass, HighPass, LowPass, nyquist, split, swap_amplitude
from hfclib.frequency import each_radius, mask

BLOCK = 2**17 // (7 * 5)  # images of 7 x 5 pixels that are transformed at once
SIZES = [(32, 32), (33, 33), (224, 160)]


def low_by_numpy(images, radius, inclusive=False):
    """The LFC by NumPy's float64 FFT: shift zero to the centre, mask by distance, shift back, transform back."""
    height, width = images.shape[-2:]
    down, across = np.ogrid[:height, :width]
    distance = np.sqrt((down - height // 2) ** 2 + (across - width // 2) ** 2)
    low = distance <= radius if inclusive else distance < radius
    spectrum = np.fft.fftshift(np.fft.fft2(images.double().numpy()), axes=(-2, -1))
    return np.fft.ifft2(np.fft.ifftshift(spectrum * low, axes=(-2, -1))).real


def largest(difference):
    return float(abs(difference).max())


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_split_agrees_with_numpy(height, width):
    for inclusive in [False, True]:
        for radius in [0, 1, 4, 7.5, 12, 16, 23]:
            images = torch.rand(2, 3, height, width)
            lfc, hfc = split(images, radius, inclusive=inclusive)
            expected = low_by_numpy(images, radius, inclusive)
            assert largest(lfc.numpy() - expected) < 1e-5
            assert largest(hfc.numpy() - (images.numpy() - expected)) < 1e-5


def test_large_batches_agree_with_numpy():
    for count, channels in [(BLOCK, 3), (BLOCK + 1, 1), (3 * BLOCK + 5, 2)]:
        images = torch.rand(count, channels, 12, 9)
        lfc, hfc = split(images, 3)
        assert largest(lfc.numpy() - low_by_numpy(images, 3)) < 1e-5
        assert largest(lfc + hfc - images) < 1e-6


def test_split_agrees_with_dft_matrices():
    for height, width in [(6, 5), (5, 6), (4, 4)]:
        for inclusive in [False, True]:

            def matrix(n):
                frequencies = np.array([k if k <= n // 2 else k - n for k in range(n)])
                return frequencies, np.exp(-2j * np.pi * np.outer(frequencies, np.arange(n)) / n)

            (rows, down), (columns, across) = matrix(height), matrix(width)
            image = torch.rand(1, 1, height, width)
            spectrum = down @ image[0, 0].double().numpy() @ across.T
            for row, v in enumerate(rows):
                for column, u in enumerate(columns):
                    distance = math.hypot(u, v)
                    if not (distance <= 2 if inclusive else distance < 2):
                        spectrum[row, column] = 0
            expected = (down.conj().T @ spectrum @ across.conj() / (height * width)).real
            assert largest(split(image, 2, inclusive=inclusive)[0][0, 0].numpy() - expected) < 1e-6


# Bins kept of 1,024 at 32x32, as counted in the paper's definition.
def test_bins_kept():
    for radius, strict, inclusive in [
        (4, 45, 49),
        (8, 193, 197),
        (12, 437, 441),
        (16, 793, 795),
        (0, 0, 1),
        (23, 1024, 1024),
    ]:
        assert mask(32, 32, radius).sum() == strict
        assert mask(32, 32, radius, inclusive=True).sum() == inclusive
        # The trace of a projection is its rank: the split itself keeps that many bins, not just the drawn mask.
        impulse = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
        impulse[0, 0, 0, 0] = 1
        assert split(impulse, radius)[0][0, 0, 0, 0].item() * 1024 == pytest.approx(strict, abs=1e-9)
        assert split(impulse, radius, inclusive=True)[0][0, 0, 0, 0].item() * 1024 == pytest.approx(inclusive, abs=1e-9)


def test_a_radius_at_a_bins_distance_leaves_it_out_unless_inclusive():
    for squared in [2, 5, 8, 13, 20]:
        radius, inclusive = math.sqrt(squared), mask(32, 32, math.sqrt(squared), inclusive=True)
        assert mask(32, 32, radius).sum() < inclusive.sum()
        images = torch.rand(1, 1, 32, 32)
        for included in (False, True):
            assert (
                largest(split(images, radius, inclusive=included)[0].numpy() - low_by_numpy(images, radius, included))
                < 1e-5
            )


def test_tiny_and_huge_radii(images):
    torch.testing.assert_close(split(images, 1e-200)[0], images.mean(dim=(2, 3), keepdim=True).expand_as(images))
    torch.testing.assert_close(split(images, 1e200)[0], images)


def test_mask_is_what_split_keeps():
    images = torch.rand(1, 1, 10, 7, dtype=torch.float64)
    before, after = (torch.fft.fftshift(torch.fft.fft2(x), dim=(-2, -1))[0, 0] for x in (images, split(images, 3)[0]))
    kept = mask(10, 7, 3)
    torch.testing.assert_close(after[kept], before[kept])
    assert largest(after[~kept]) < 1e-12


sizes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 12), st.integers(1, 12))
seeds = st.integers(0, 2**31)
radii = st.just(0.0) | st.floats(0.01, 14) | st.integers(0, 14)


def noise(size, seed):
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def energy(images):
    return images.square().sum().item()


@given(sizes, seeds, radii, st.booleans())
def test_components_add_up_and_split_the_energy(size, seed, radius, inclusive):
    images = noise(size, seed)
    lfc, hfc = split(images, radius, inclusive=inclusive)
    torch.testing.assert_close(lfc + hfc, images)
    assert energy(lfc) + energy(hfc) == pytest.approx(energy(images))


@given(sizes, seeds, st.just(0.0) | st.floats(1, 14) | st.integers(0, 14), st.booleans())
def test_low_pass_is_a_projection(size, seed, radius, inclusive):
    low, high = LowPass(radius, inclusive=inclusive), HighPass(radius, inclusive=inclusive)
    images = noise(size, seed)
    torch.testing.assert_close(low(low(images)), low(images))
    torch.testing.assert_close(high(high(images)), high(images))
    assert largest(low(high(images))) < 1e-12


@given(sizes, seeds, radii, st.floats(-5, 5), st.floats(-5, 5))
def test_split_is_linear(size, seed, radius, a, b):
    one, two = noise(size, seed), noise(size, seed + 1)
    for whole, first, second in zip(
        split(a * one + b * two, radius), split(one, radius), split(two, radius), strict=True
    ):
        torch.testing.assert_close(whole, a * first + b * second, rtol=1e-7, atol=1e-10)


@given(sizes, st.floats(-10, 10), radii)
def test_a_constant_is_low_at_any_radius_but_zero(size, value, radius):
    images = torch.full(size, value, dtype=torch.float64)
    lfc, hfc = split(images, radius)
    kept, empty = (lfc, hfc) if radius > 0 else (hfc, lfc)
    torch.testing.assert_close(kept, images)
    assert largest(empty) < 1e-12


@given(seeds, st.floats(0.01, 1))
def test_extreme_radii(seed, at_most_one):
    images = noise((2, 3, 32, 32), seed)
    assert not split(images, 0)[0].any()
    torch.testing.assert_close(split(images, 23)[0], images)
    mean = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    torch.testing.assert_close(split(images, at_most_one)[0], mean)


@given(sizes, seeds, radii, radii)
def test_energy_grows_with_the_radius(size, seed, first, other):
    images = noise(size, seed)
    small, large = (energy(split(images, radius)[0]) for radius in sorted((first, other)))
    inclusive = energy(split(images, min(first, other), inclusive=True)[0])
    assert small <= large + 1e-9
    assert small <= inclusive + 1e-9


@given(sizes, seeds, radii, st.integers(-9, 9), st.integers(-9, 9))
def test_shifts_pass_through(size, seed, radius, down, across):
    images = noise(size, seed)
    moved = torch.roll(images, (down, across), dims=(2, 3))
    for first, second in zip(split(moved, radius), split(images, radius), strict=True):
        torch.testing.assert_close(first, torch.roll(second, (down, across), dims=(2, 3)))


@given(sizes, seeds, radii)
def test_channels_and_images_are_on_their_own(size, seed, radius):
    images = noise(size, seed)
    lfc = split(images, radius)[0]
    for n in range(size[0]):
        for c in range(size[1]):
            torch.testing.assert_close(split(images[n : n + 1, c : c + 1], radius)[0][0, 0], lfc[n, c])


def test_gradient_is_the_filtered_weight():
    for count in [2, 2 * BLOCK + 3]:
        images, weights = torch.rand(count, 3, 8, 7, requires_grad=True), torch.rand(count, 3, 8, 7)
        for part, filtered in zip(split(images, 3), split(weights, 3), strict=True):
            gradient = torch.autograd.grad((part * weights).sum(), images, retain_graph=True)[0]
            torch.testing.assert_close(gradient, filtered)


def test_blocks_equal_the_differentiable_way():
    images = torch.rand(2 * BLOCK + 3, 3, 8, 8)
    for blocks, whole in zip(split(images, 3), split(images.clone().requires_grad_(), 3), strict=True):
        torch.testing.assert_close(blocks, whole.detach(), rtol=0, atol=5e-7)


def test_an_odd_image_does_not_spoil_the_others():
    for odd_one in [float("nan"), float("inf"), 1e20, 1e-20, 0.0]:
        images = torch.rand(2 * BLOCK, 3, 8, 8)
        spoilt = images.clone()
        spoilt[5] = odd_one
        if odd_one < 1:  # nor is it spoilt by them
            torch.testing.assert_close(split(spoilt, 3)[0][5], spoilt[5], rtol=1e-6, atol=0)
        others = torch.arange(len(images)) != 5
        for one, other in zip(split(images, 3), split(spoilt, 3), strict=True):
            assert torch.equal(one[others], other[others])


def test_gradients_after_a_first_use_in_inference_mode():
    radius = 2.375  # used by no other test: what a first use keeps in memory must serve the later ones
    images = torch.rand(2, 3, 9, 9)
    with torch.inference_mode():
        expected = split(images, radius)[0].clone()
    lfc = split(images.requires_grad_(), radius)[0]
    lfc.sum().backward()
    torch.testing.assert_close(lfc.detach(), expected)
    assert images.grad is not None


def test_half_types_are_computed_in_float32():
    for dtype in [torch.float16, torch.bfloat16]:
        images = torch.rand(BLOCK + 2, 3, 16, 16).to(dtype)
        for half, single in zip(split(images, 4), split(images.float(), 4), strict=True):
            assert half.dtype == dtype
            assert torch.equal(half, single.to(dtype))


def test_double_precision_is_used():
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    assert largest(split(images, 8)[0].numpy() - low_by_numpy(images, 8)) < 1e-14


def test_memory_layout_does_not_matter():
    for count in [3, BLOCK + 3]:
        images = torch.rand(count, 3, 9, 12)
        expected = split(images, 3)[0]
        layouts = {
            "channels_last": images.contiguous(memory_format=torch.channels_last),
            "transposed": images.transpose(2, 3).contiguous().transpose(2, 3),
            "strided": torch.rand(count, 3, 9, 24)[..., ::2].copy_(images),
            "expanded": images[:1].expand(count, -1, -1, -1),
        }
        for name, laid_out in layouts.items():
            before = laid_out.clone()
            lfc, hfc = split(laid_out, 3)
            wanted = expected[:1].expand_as(expected) if name == "expanded" else expected
            torch.testing.assert_close(lfc, wanted, rtol=0, atol=1e-6, msg=name)
            torch.testing.assert_close(lfc + hfc, laid_out, rtol=0, atol=1e-6, msg=name)
            assert torch.equal(laid_out, before), f"{name}: the images were changed"


def test_bad_radius():
    for radius, error, message in [
        (-1, ValueError, "at least 0"),
        (math.nan, ValueError, "finite"),
        (math.inf, ValueError, "finite"),
        ("4", TypeError, "must be real number, not str"),
        (None, TypeError, "must be real number, not NoneType"),
    ]:
        for use in [lambda r: split(torch.rand(1, 3, 8, 8), r), LowPass, HighPass, lambda r: mask(8, 8, r)]:
            with pytest.raises(error, match=message):
                use(radius)
    for radii in [(8,), [4, 8, 12], ()]:
        with pytest.raises(ValueError, match="each radius as a number or a pair to draw between"):
            LowPass(radii)


def test_bad_images():
    for images, error, message in [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "divide integers by 255"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), TypeError, "float images"),
        (torch.rand(8, 8), ValueError, r"\(N, C, H, W\), got \(8, 8\)"),
        (torch.rand(1, 1, 3, 8, 8), ValueError, r"\(N, C, H, W\), got \(1, 1, 3, 8, 8\)"),
        (torch.rand(1, 3, 0, 8), ValueError, r"got \(1, 3, 0, 8\)"),
        (np.zeros((1, 3, 8, 8), np.float32), TypeError, "got ndarray"),
    ]:
        for use in (lambda x: split(x, 4), LowPass(4), HighPass(4)):
            with pytest.raises(error, match=message):
                use(images)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), got \(3, 8, 8\)"):
        split(torch.rand(3, 8, 8), 4)
    with pytest.raises(TypeError, match="got dict"):
        LowPass(4)({"label": 3})


def test_modules(images):
    for inclusive in (False, True):
        lfc, hfc = split(images, 3, inclusive=inclusive)
        for module, band in [(LowPass(3, inclusive=inclusive), lfc), (HighPass(3, inclusive=inclusive), hfc)]:
            assert torch.equal(module(images), band)
            torch.testing.assert_close(module(images[0]), band[0])
            assert not module.state_dict()
        within = low_by_numpy(images, 3, inclusive) - low_by_numpy(images, 1, inclusive)
        assert largest(BandPass(1, 3, inclusive=inclusive)(images).numpy() - within) < 1e-5


def test_a_radius_is_drawn_at_each_call(images):
    low, torch_state = LowPass((1.0, 4.0)), torch.get_rng_state()
    kept = [low(images) for _ in range(40)]
    sizes = {int((torch.fft.fft2(one.double()).abs() > 1e-4).any(dim=(0, 1)).sum()) for one in kept}
    assert len(sizes) > 5
    assert min(sizes) >= mask(8, 8, 1).sum()
    assert max(sizes) <= mask(8, 8, 4).sum()
    torch.set_rng_state(torch_state)
    assert torch.equal(low(images), kept[0])
    for make in (lambda: LowPass((4, 1)), lambda: BandPass(3, 2), lambda: BandPass((1, 3), (2, 4))):
        with pytest.raises(ValueError, match="radii in ascending order"):
            make()


def test_transforms_change_the_images_of_a_sample_only():
    pixels = torch.randint(0, 256, (3, 9, 12), dtype=torch.uint8)
    image = pixels / 255
    photo, label = v2.functional.to_pil_image(pixels), torch.tensor([0.5, 2.0])
    for module, expected in [(LowPass(2), split(image[None], 2)[0][0]), (HighPass(2), split(image[None], 2)[1][0])]:
        pipeline = v2.Compose([module, v2.Identity()])
        for picture in (image, tv_tensors.Image(image), photo):
            for filtered, kept in (pipeline(picture, label), pipeline((picture, label)), pipeline([picture, label])):
                assert type(filtered) is (torch.Tensor if picture is image else tv_tensors.Image)
                torch.testing.assert_close(
                    filtered, expected, check_dtype=True, atol=1e-6, rtol=0, msg=str(type(picture))
                )
                assert kept is label
    assert type(LowPass(2)(tv_tensors.Image(image))) is tv_tensors.Image
    assert type(LowPass(2)(tv_tensors.Video(image[None]))) is tv_tensors.Video
    mask_of = tv_tensors.Mask(torch.rand(9, 12))
    made = LowPass(2)({"image": photo, "mask": mask_of, "name": "frog"})
    torch.testing.assert_close(made["image"], tv_tensors.Image(split(image[None], 2)[0][0]))
    assert made["mask"] is mask_of
    assert made["name"] == "frog"
    batch = default_collate([(image, 1), (1 - image, 2)])
    filtered, labels = HighPass(2)(*batch)
    torch.testing.assert_close(filtered, split(torch.stack([image, 1 - image]), 2)[1])
    assert labels.tolist() == [1, 2]
    with pytest.raises(TypeError, match="divide integers by 255"):
        LowPass(2)(tv_tensors.Image(pixels))
    palette = photo.quantize(16)  # whose pixels are numbers of colours
    assert palette.mode == "P"
    torch.testing.assert_close(LowPass(2)(palette), LowPass(2)(palette.convert("RGB")))
    for mode in ("I", "F"):
        with pytest.raises(ValueError, match=f"known range, got one of mode {mode}"):
            LowPass(2)(photo.convert("L").convert(mode))


def test_swapped_amplitudes_by_numpy():
    images, others = torch.rand(2, 2, 3, 9, 8).unbind()
    spectra, donors = (np.fft.fft2(one.double().numpy()) for one in (images, others))
    distance = np.hypot(*np.meshgrid(np.fft.fftfreq(9) * 9, np.fft.fftfreq(8) * 8, indexing="ij"))
    for radius in (None, 0, 2.5, 20):
        chosen = np.where(distance < (20 if radius is None else radius), abs(donors), abs(spectra))
        expected = np.fft.ifft2(chosen * np.exp(1j * np.angle(spectra))).real
        assert largest(swap_amplitude(images, others, radius).numpy() - expected) < 1e-5
    with pytest.raises(ValueError, match=r"others of shape \(2, 3, 9, 8\), got \(1, 3, 9, 8\)"):
        swap_amplitude(images, others[:1])


# ---- traced, exported, mapped


@pytest.fixture(params=["high", "band", "network"])
def traced(request):
    head = [nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 6 * 5, 4)]
    return {
        "high": HighPass(2),
        "band": BandPass(1, 2.5),
        "network": nn.Sequential(LowPass(2), *head).eval(),
    }[request.param]


def by_the_differentiable_way(module, images):
    return module(images.clone().requires_grad_()).detach()


def test_compiled_and_exported_for_any_batch_size(traced):
    batches = [torch.rand(count, 3, 8, 7) for count in (2, 3, 2 * BLOCK + 1)]
    compiled = torch.compile(traced, fullgraph=True, backend="aot_eager", dynamic=True)
    exported = torch.export.export(traced, (batches[1],), dynamic_shapes=({0: torch.export.Dim("images")},)).module()
    with torch.no_grad():
        for batch in batches:
            for made in (compiled, exported):
                torch.testing.assert_close(made(batch), by_the_differentiable_way(traced, batch), atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_results_of_a_traced_pass_have_memory_of_their_own():
    first, second = torch.rand(2, 1, 3, 400, 400)
    traced = torch.jit.trace(LowPass(8), first)
    swapped = traced(first)
    kept = swapped.clone()
    torch.testing.assert_close(traced(second), LowPass(8)(second), atol=1e-6, rtol=0)
    assert torch.equal(swapped, kept)


def test_onnx_for_any_batch_size(traced):
    file, dynamic = io.BytesIO(), ({0: torch.export.Dim("images")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter uses what PyTorch deprecates
        torch.onnx.export(traced, (torch.rand(3, 3, 8, 7),), dynamic_shapes=dynamic, dynamo=True, verbose=False).save(
            file
        )
    session = onnxruntime.InferenceSession(file.getvalue())
    for count in (1, 2, 2 * BLOCK + 1):
        batch = torch.rand(count, 3, 8, 7)
        (found,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
        assert largest(found - by_the_differentiable_way(traced, batch).numpy()) < 1e-5


def test_a_pass_in_a_fake_mode_or_a_transform_leaves_nothing_behind():
    images, expected = torch.rand(4, 3, 9, 8), None
    for radius in (1.25, 2.25):  # first used here
        if radius == 2.25:
            expected = split(images, radius)[0]
        with FakeTensorMode():
            assert LowPass(radius)(torch.rand(4, 3, 9, 8)).shape == images.shape
        torch.testing.assert_close(torch.func.functionalize(LowPass(radius))(images), LowPass(radius)(images))
    torch.testing.assert_close(LowPass(2.25)(images), expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # imported by PyTorch's own derivatives
def test_mapped_and_differentiated_forwards_at_any_batch_size(traced):
    for count in (2, 2 * BLOCK + 1):
        images, towards = torch.rand(2, count, 3, 8, 7)
        expected = by_the_differentiable_way(traced, images)
        with torch.no_grad():
            many, one_by_one = torch.func.vmap(traced)(images[None]), torch.func.vmap(traced)(images[:, None])
            value, tangent = torch.func.jvp(traced, (images,), (towards,))
            with torch.autograd.forward_ad.dual_level():
                dual = traced(torch.autograd.forward_ad.make_dual(images, towards))
                other = torch.autograd.forward_ad.unpack_dual(dual).tangent
        linear = by_the_differentiable_way(traced, towards) - by_the_differentiable_way(traced, 0 * towards)
        for result, wanted in [(many[0], expected), (one_by_one[:, 0], expected), (value, expected)]:
            torch.testing.assert_close(result, wanted, atol=1e-5, rtol=0)
        for result in (tangent, other):
            torch.testing.assert_close(result, linear, atol=1e-5, rtol=0)


def test_amplitudes_of_another_precision_and_negative_views():
    images, others = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 3, 8, 8)
    assert torch.allclose(swap_amplitude(images, others), swap_amplitude(images, others.double()))
    planes = torch.complex(torch.rand(4 * BLOCK, 1, 7, 5), torch.rand(4 * BLOCK, 1, 7, 5)).conj().imag
    assert planes.is_neg()
    assert torch.allclose(split(planes, 2)[0], split(planes.clone(), 2)[0], atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-6])
def test_an_image_is_split_alike_beside_others_of_any_scale(scale):
    images = torch.rand(200, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    images[::2] *= scale
    images[7] = 0
    alone = [split(image[None], 8) for image in images]
    for part, all_at_once in enumerate(split(images, 8)):
        error = (all_at_once - torch.cat([one[part] for one in alone])).flatten(1).abs().amax(dim=1)
        assert (error <= 1e-6 * images.flatten(1).abs().amax(dim=1)).all()


def test_radii_are_in_bins_whatever_their_type():
    column = pd.Series([1, 4]).reindex([0, 1, 2]).dropna()  # the missing value left floats behind
    for given_radii in ([1, 4], [1.0, 4], (1.0, 4.0), column, np.array([1, 4]), torch.tensor([1.0, 4.0])):
        assert each_radius(given_radii) == [1, 4]
    assert each_radius([0, 1, 1.5]) == [0, 1, 1.5]
    with pytest.raises(ValueError, match=r"different radii, got \[1, 1.0\]"):
        each_radius([1, 1.0])
    with pytest.raises(ValueError, match="expected one radius or more, got none"):
        each_radius([])


def test_a_share_of_nyquist_is_refused_where_a_radius_is_chosen():
    for use in (each_radius, LowPass, HighPass, lambda radius: BandPass(0, radius), lambda r: LowPass((r, 4))):
        for share in (0.25, np.float32(0.25)):
            with pytest.raises(ValueError, match=r"in DFT bins, 0 or at least 1, got .*0.25.*: hfclib.nyquist\(share"):
                use(share)


def test_nyquist_converts_shares():
    assert [nyquist(share, 224) for share in (0, 0.25, 1)] == [0, 28, 112]
    assert nyquist(np.float64(0.5), torch.rand(2, 3, 10, 64)) == 2.5
    assert nyquist(0.5, torch.rand(64, 33)) == 8.25
    assert nyquist(0.5, np.int64(32)) == 8
    for share, images, error, message in [
        (8, 32, ValueError, r"a share of the Nyquist frequency in \[0, 1\], got 8"),
        (-0.5, 32, ValueError, "got -0.5"),
        (math.nan, 32, ValueError, "got nan"),
        (0.5, 0, ValueError, "a side of at least 1 pixel, got 0"),
        (0.5, 32.5, TypeError, "float"),
    ]:
        with pytest.raises(error, match=message):
            nyquist(share, images)


def test_the_filters_show_their_radii():
    assert repr(LowPass(8)) == "LowPass(radius=8)"
    assert repr(LowPass(2.5, inclusive=True)) == "LowPass(radius=2.5, inclusive=True)"
    assert repr(HighPass((4, 16))) == "HighPass(radius=(4, 16))"
    assert repr(BandPass(0, nyquist(0.5, 32))) == "BandPass(inner=0, outer=8)"
    assert "LowPass(radius=8)" in repr(nn.Sequential(LowPass(8.0), nn.Flatten()))


def test_of_no_images():
    none = torch.zeros(0, 3, 8, 8)
    for found in (swap_amplitude(none, none), *split(none, 3), LowPass(3)(none), BandPass(1, 3)(none)):
        assert found.shape == (0, 3, 8, 8)
