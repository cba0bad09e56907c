"""The measurements of a report beside the accuracy by band: each returns the rows of a table."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise, product

import torch
from torch import Tensor
from tqdm import tqdm

from hfclib.attacks.gradient import pgd
from hfclib.batching import logits
from hfclib.conditions import depends_on_batch, evaluating
from hfclib.devices import device_of, gains_from_bf16
from hfclib.frequency import BandPass, mask, split, swap_amplitude
from hfclib.metrics import misaligned
from hfclib.report.metric import counted

log = logging.getLogger(__name__)

GALLERY = 8  # numbers of misaligned images that are kept; the page shows four
# Of the standard deviation of an image's logits: nearer than this, the largest two may change their order in bfloat16.
_DOUBT = 0.06  # on CIFAR-10 they did so below .052


def _correct(model: Callable, images: Tensor, labels: Tensor) -> dict:
    """The columns of `counted`; images on which bfloat16 may err are computed again in float32."""
    rounded = gains_from_bf16(device_of(model)) and not depends_on_batch(model)  # which some images alone would change
    scores = logits(model, images, amp=rounded)
    predictions = scores.argmax(dim=1)
    if rounded:
        best = scores.topk(2).values
        spread = scores.std(dim=1)  # that of all images counts too: of two logits, the lead is always above their own
        doubtful = best[:, 0] - best[:, 1] < _DOUBT * spread.maximum(spread.mean())
        if doubtful.any():
            predictions[doubtful] = logits(model, images[doubtful]).argmax(dim=1)
    return counted(int((predictions == labels).sum()), len(labels))


def frequencies(height: int, width: int, grid: int) -> Iterator[tuple[int, int]]:
    """Frequencies (row, column) in cycles per image, at most `grid` per axis; one of each pair with opposite signs."""
    halves, steps = (height // 2, width // 2), {"steps": grid, "device": "cpu"}
    rows, columns = (torch.linspace(-half, half, **steps).round().int().tolist() for half in halves)
    for row, column in product(sorted(set(rows)), sorted(set(columns))):
        if (column, row) >= (0, 0):
            yield row, column


def wave(height: int, width: int, row: int, column: int) -> Tensor:
    """A real image (height, width) of L2 norm 1 whose DFT is zero but at (row, column) and (-row, -column)."""
    down, across = (torch.arange(side, dtype=torch.float64, device="cpu") / side for side in (height, width))
    plane = torch.cos(2 * math.pi * (row * down[:, None] + column * across))
    return (plane / plane.norm()).float()


def heat_map(
    model: Callable,
    images: Tensor,
    labels: Tensor,
    *,
    grid: int,
    norm: float,
    seed: int,
    engine: Callable = map,
) -> list[dict]:
    """Error rate under noise along each Fourier basis vector; pixels are not clipped.

    Args:
        model, images, labels: a module, (N, C, H, W) in [0, 1], and (N,).
        grid: frequencies per axis, evenly spaced from -Nyquist to Nyquist.
        norm: L2 norm of the noise in each channel. Its sign is drawn for each image and channel.
        engine: as in `make_report`.
    Returns:
        One row per frequency, half of the plane: row, column (cycles per image), error, and the columns of `counted`.
    Source: Yin et al., NeurIPS 2019, section 3.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    signs = torch.randint(0, 2, (*images.shape[:2], 1, 1), generator=generator, device="cpu").to(images) * 2 - 1
    places = list(frequencies(*images.shape[-2:], grid))
    rows = engine(partial(_under_wave, model, images, labels, norm * signs), places)
    return list(tqdm(rows, "heat map", len(places), disable=None, leave=False))


def _under_wave(model: Callable, images: Tensor, labels: Tensor, factors: Tensor, place: tuple[int, int]) -> dict:
    found = _correct(model, images + factors * wave(*images.shape[-2:], *place).to(images), labels)
    return {"row": place[0], "column": place[1], "error": 1 - found["accuracy"], **found}


def band_noise(
    model: Callable, images: Tensor, labels: Tensor, radii: Sequence[float], *, norm: float, seed: int
) -> list[dict]:
    """Accuracy under Gaussian noise of each band between consecutive radii; arguments as in `heat_map`.

    Returns:
        One row per band: from_bins, to_bins, and the columns of `counted`.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator, device="cpu").to(images)
    edges = sorted({0.0, math.hypot(*images.shape[-2:]), *map(float, radii)})
    rows = []
    for inner, outer in pairwise(edges):
        band = BandPass(inner, outer)(noise)
        if (mask(*images.shape[-2:], outer) ^ mask(*images.shape[-2:], inner)).any():
            scaled = norm * band / band.norm(dim=(2, 3), keepdim=True)
            rows.append({"from_bins": inner, "to_bins": outer, **_correct(model, images + scaled, labels)})
    return rows


def attack_energy(
    model: Callable, images: Tensor, labels: Tensor, radii: Sequence[float], *, eps: float, steps: int
) -> list[dict]:
    """Where the energy of a PGD perturbation lies; of L2, since the signs of L-infinity have nearly a flat spectrum.

    Args:
        model, images, labels: as in `pgd`.
        eps, steps: of PGD, with steps of eps / 4 from the image itself.
    Returns:
        One row per radius: radius; images, the number of those that PGD moves; share, the mean over these of the energy
        at or beyond the radius; low and high, its 95 % normal interval, None of a single image; bins, the share of the
        bins there, which white noise would have; and robust_correct, the number of images that stay correct. No row if
        the logits have no gradient, or a zero one everywhere.
    """
    with torch.inference_mode(False), evaluating(model), torch.enable_grad():
        try:
            some = images[:2].clone().requires_grad_()
            scores = model(some.clone())
            if not scores.requires_grad or torch.autograd.grad(scores.sum(), some, allow_unused=True)[0] is None:
                return []
        except RuntimeError as error:
            if "numpy" not in str(error):
                raise
            log.warning("no attack, since the model computes outside PyTorch: %s", error)
            return []
    options = {"eps": eps, "alpha": eps / 4, "steps": steps, "norm": "l2", "random_start": False}
    blocks = [pgd(model, *block, **options) for block in zip(images.split(100), labels.split(100), strict=True)]
    adv_images = torch.cat(blocks)
    robust, delta, rows = _correct(model, adv_images, labels)["correct"], adv_images - images, []
    energy = delta.square().sum(dim=(1, 2, 3))
    delta, energy = delta[energy > 0], energy[energy > 0]
    for radius in radii if len(energy) else ():
        shares = split(delta, radius)[1].square().sum(dim=(1, 2, 3)) / energy
        share = shares.mean().item()
        row = {"radius": radius, "images": len(shares), "share": share, "low": None, "high": None}
        if len(shares) > 1:
            half = 1.96 * shares.std(unbiased=True).item() / math.sqrt(len(shares))
            row |= {"low": share - half, "high": share + half}
        white = 1 - mask(*images.shape[-2:], radius).double().mean().item()
        rows.append(row | {"bins": white, "robust_correct": robust})
    return rows


def misaligned_images(
    model: Callable, images: Tensor, labels: Tensor, radii: Sequence[float], *, colour: Sequence[float]
) -> list[dict]:
    """How many images are misaligned (`hfclib.misaligned`, feed "mean") at each radius.

    Returns:
        One row per radius: radius; the columns of `counted`, where correct is the number of misaligned images and
        accuracy their share; and first, the numbers of the first few.
    """
    rows = []
    for radius in radii:
        found = misaligned(model, images, labels, radius, feed="mean", colour=colour)
        first = found.nonzero().squeeze(1).tolist()[:GALLERY]
        rows.append({"radius": radius, **counted(int(found.sum()), len(images)), "first": first})
    return rows


def phase_or_amplitude(model: Callable, images: Tensor, labels: Tensor, *, seed: int) -> list[dict]:
    """Which class predictions follow, if the phases are of one image and the amplitudes of one of another class.

    Args:
        model, images, labels: as in `heat_map`. Each image gives the phases once; the image that gives the amplitudes
            is drawn from those of the other classes. The mixed images are not clipped.
    Returns:
        Three rows: follows ("phase", "amplitude" or "neither"), and the columns of `counted`, where correct is the
        number of such predictions and accuracy their share. No row if all images are of one class.
    Source: Chen et al., ICCV 2021, for the mixed images.
    """
    classes, generator = labels.cpu(), torch.Generator("cpu").manual_seed(seed)
    if (classes == classes[0]).all():
        return []
    drawn = [(some[:, None] != classes).float().multinomial(1, generator=generator) for some in classes.split(256)]
    partners = torch.cat(drawn).squeeze(1).to(labels.device)
    predictions = logits(model, swap_amplitude(images, images[partners])).argmax(dim=1)
    phase, amplitude = (int((predictions == classes).sum()) for classes in (labels, labels[partners]))
    counts = {"phase": phase, "amplitude": amplitude, "neither": len(labels) - phase - amplitude}
    return [{"follows": name, **counted(count, len(labels))} for name, count in counts.items()]
