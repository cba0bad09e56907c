"""The parts of a report beside the accuracy by band: each measures the first images, and returns rows of a table."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product

import torch
from torch import Tensor, nn
from tqdm import tqdm

from hfclib.attacks.gradient import pgd
from hfclib.batching import BATCH_SIZE, batch_size_of, batch_sizes, logits
from hfclib.conditions import Condition, evaluating, iter_inputs
from hfclib.frequency import BandPass, mask, split, swap_amplitude
from hfclib.metrics import misaligned
from hfclib.reporting.metric import READ, Classifier, counted
from hfclib.reporting.settings import FittedSettings

log = logging.getLogger(__name__)

ATTACK_MEMORY = 1000  # MB that an attack may keep for the gradient of a batch
GALLERY = 8  # numbers of misaligned images that are kept; the page shows four


@dataclass(frozen=True)
class Subject:
    """What the parts measure.

    Attributes:
        network: on the device of the images.
        images, labels: the first ones, (N, C, H, W) float32 in [0, 1] and (N,).
        settings: how to measure.
        engine: as in `hfclib.reporting.make.make_report`.
    """

    network: Classifier
    images: Tensor
    labels: Tensor
    settings: FittedSettings
    engine: Callable

    @property
    def given(self) -> tuple[Classifier, Tensor, Tensor]:
        """Network, images and labels, which every measurement takes first."""
        return self.network, self.images, self.labels


@dataclass(frozen=True)
class ReportPart:
    """A part of a report.

    Attributes:
        name: in `report.json` and of its CSV file.
        rows_of: from network, images, labels and options to its rows.
        options: of `rows_of` beside the batch size: fields of the settings, and the engine.
        passes: about how many forward passes it takes for each of the first images.
    """

    name: str
    rows_of: Callable[..., list[dict]]
    options: tuple[str, ...]
    passes: Callable[[FittedSettings], float]

    def measure(self, subject: Subject) -> list[dict]:
        """Its rows."""
        known = vars(subject.settings) | {"engine": subject.engine}
        return self.rows_of(*subject.given, **{name: known[name] for name in ("batch_size", *self.options)})


def _correct(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = BATCH_SIZE) -> dict:
    """The columns of `counted`, in full precision: which networks bfloat16 would change is not known beforehand."""
    predictions = logits(model, images, batch_size=batch_size_of(model, batch_size)).argmax(dim=1)
    return counted(int((predictions == labels).sum()), len(labels))


def frequencies(height: int, width: int, grid: int) -> Iterator[tuple[int, int]]:
    """Frequencies (row, column) in cycles per image, at most `grid` per axis; one of each pair with opposite signs."""
    halves = height // 2, width // 2
    rows, columns = (torch.linspace(-half, half, grid, device="cpu").round().int().tolist() for half in halves)
    for row, column in product(sorted(set(rows)), sorted(set(columns))):
        if (column, row) >= (0, 0):
            yield row, column


def wave(height: int, width: int, row: int, column: int) -> Tensor:
    """A real image (height, width) of L2 norm 1 whose DFT is zero but at (row, column) and (-row, -column)."""
    down, across = (torch.arange(side, dtype=torch.float64, device="cpu") / side for side in (height, width))
    plane = torch.cos(2 * math.pi * (row * down[:, None] + column * across))
    return (plane / plane.norm()).float()


def heat_map(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    grid: int,
    norm: float,
    seed: int,
    batch_size: int = BATCH_SIZE,
    engine: Callable = map,
) -> list[dict]:
    """Error rate under noise along each Fourier basis vector; pixels are not clipped.

    Args:
        model, images, labels: a module, (N, C, H, W) in [0, 1], and (N,).
        grid: frequencies per axis, evenly spaced from -Nyquist to Nyquist.
        norm: L2 norm of the noise in each channel. Its sign is drawn for each image and channel.
        batch_size: images at once.
        engine: as in `Subject`.
    Returns:
        One row per frequency, half of the plane: row, column (cycles per image), error, and the columns of `counted`.
    Source: Yin et al., NeurIPS 2019, section 3.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    signs = torch.randint(0, 2, (*images.shape[:2], 1, 1), generator=generator, device="cpu").to(images) * 2 - 1
    height, width = images.shape[-2:]
    places = list(frequencies(height, width, grid))
    rows = engine(partial(_under_wave, model, images, labels, norm * signs, batch_size), places)
    return list(tqdm(rows, "heat map", len(places), disable=None, leave=False))


def _under_wave(
    model: nn.Module, images: Tensor, labels: Tensor, factors: Tensor, batch_size: int, place: tuple[int, int]
) -> dict:
    (height, width), (row, column) = images.shape[-2:], place
    noise = factors * wave(height, width, row, column).to(images)
    counts = _correct(model, images + noise, labels, batch_size)
    return {"row": row, "column": column, "error": 1 - counts["accuracy"], **counts}


def band_noise(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radii: Sequence[float],
    *,
    norm: float,
    seed: int,
    batch_size: int = BATCH_SIZE,
) -> list[dict]:
    """Accuracy under Gaussian noise of each band between consecutive radii; arguments as in `heat_map`.

    Returns:
        One row per band: from_bins, to_bins, and the columns of `counted`.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator, device="cpu").to(images)
    height, width = images.shape[-2:]
    edges = sorted({0.0, math.hypot(height, width), *map(float, radii)})
    rows = []
    for inner, outer in pairwise(edges):
        band = BandPass(inner, outer)(noise)
        if (mask(height, width, outer) ^ mask(height, width, inner)).any():
            scaled = norm * band / band.norm(dim=(2, 3), keepdim=True)
            rows.append({"from_bins": inner, "to_bins": outer, **_correct(model, images + scaled, labels, batch_size)})
    return rows


def attack_batch(
    model: nn.Module, images: Tensor, most: int = BATCH_SIZE, memory: float = ATTACK_MEMORY
) -> tuple[int, float] | None:
    """How many images PGD takes at once so that it keeps no more than `memory` for the gradient, and the MB then.

    Args:
        model, images: a module, and (N, C, H, W), of which two are used.
        most: images at once.
        memory: in MB; one image is taken at least. A model whose logits depend on the batch gets BATCH_SIZE always.
    Returns:
        None if the logits have no gradient.
    """
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor  # held by the graph: another tensor can't take its place in memory

    with torch.inference_mode(False), evaluating(model), torch.enable_grad():
        pair = images[:2].clone().requires_grad_()
        try:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                scores = model(pair.clone())
            if not scores.requires_grad or torch.autograd.grad(scores.sum(), pair, allow_unused=True)[0] is None:
                return None
        except RuntimeError as error:
            if "numpy" not in str(error):  # which a model that computes outside PyTorch calls
                raise
            return None
    for weight in model.parameters():
        kept.pop(weight.untyped_storage().data_ptr(), None)
    each = sum(kept.values()) / len(pair) / 1e6
    size = batch_size_of(model, max(1, min(most, int(memory / max(each, 1e-3)))))
    return size, size * each


def attack_energy(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radii: Sequence[float],
    *,
    eps: float,
    steps: int,
    batch_size: int = BATCH_SIZE,
) -> list[dict]:
    """Where the energy of a PGD perturbation lies; of L2, since the signs of L-infinity have nearly a flat spectrum.

    Args:
        model, images, labels: as in `pgd`.
        eps, steps: of PGD, with steps of eps / 4 from the image itself.
        batch_size: the most images at once, see `attack_batch`.
    Returns:
        One row per radius: radius; images, the number of those that PGD moves; share, the mean over these of the energy
        at or beyond the radius; low and high, its 95 % normal interval, None of a single image; bins, the share of the
        bins there, which white noise would have; and robust_correct, the number of images that stay correct. No row if
        the logits have no gradient, or a zero one everywhere.
    """
    fitting = attack_batch(model, images, batch_size)
    if fitting is None:
        log.info("no attack, since the logits have no gradient in PyTorch")
        return []
    sizes = batch_sizes(len(images), fitting[0])
    options: dict = {"eps": eps, "alpha": eps / 4, "steps": steps, "norm": "l2", "random_start": False}
    blocks = list(zip(images.split(sizes), labels.split(sizes), strict=True))
    blocks = [pgd(model, *block, **options) for block in tqdm(blocks, "PGD", disable=None, leave=False)]
    adv_images = torch.cat(blocks)
    robust, delta, rows = _correct(model, adv_images, labels, batch_size)["correct"], adv_images - images, []
    (height, width), energy = images.shape[-2:], delta.square().sum(dim=(1, 2, 3))
    delta, energy = delta[energy > 0], energy[energy > 0]
    for radius in radii if len(energy) else ():
        shares = split(delta, radius)[1].square().sum(dim=(1, 2, 3)) / energy
        share = shares.mean().item()
        row = {"radius": radius, "images": len(shares), "share": share, "low": None, "high": None}
        if len(shares) > 1:
            half = 1.96 * shares.std(unbiased=True).item() / math.sqrt(len(shares))
            row |= {"low": share - half, "high": share + half}
        white = 1 - mask(height, width, radius).double().mean().item()
        rows.append(row | {"bins": white, "robust_correct": robust})
    return rows


def misaligned_images(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radii: Sequence[float],
    *,
    colour: Sequence[float],
    batch_size: int = BATCH_SIZE,
) -> list[dict]:
    """How many images are misaligned (`hfclib.misaligned`, feed "mean") at each radius.

    Returns:
        One row per radius: radius; the columns of `counted`, where correct is the number of misaligned images and
        accuracy their share; and first, the numbers of the first few.
    """
    rows, size = [], batch_size_of(model, batch_size)
    for radius in radii:
        mask_of_images = misaligned(model, images, labels, radius, feed="mean", colour=colour, batch_size=size)
        first = mask_of_images.nonzero().squeeze(1).tolist()[:GALLERY]
        rows.append({"radius": radius, **counted(int(mask_of_images.sum()), len(images)), "first": first})
    return rows


def phase_or_amplitude(
    model: nn.Module, images: Tensor, labels: Tensor, *, seed: int, batch_size: int = BATCH_SIZE
) -> list[dict]:
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
    mixed = swap_amplitude(images, images[partners])
    predictions = logits(model, mixed, batch_size=batch_size_of(model, batch_size)).argmax(dim=1)
    phase, amplitude = (int((predictions == classes).sum()) for classes in (labels, labels[partners]))
    counts = {"phase": phase, "amplitude": amplitude, "neither": len(labels) - phase - amplitude}
    return [{"follows": name, **counted(count, len(labels))} for name, count in counts.items()]


def predictions(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radii: Sequence[float],
    *,
    colour: Sequence[float],
    batch_size: int = BATCH_SIZE,
) -> list[dict]:
    """What each image is taken for: as it is, and by its LFC and its HFC with the mean colour at each radius.

    Returns:
        One row per image and radius: number, radius, label, and the predicted classes whole, lfc and hfc.
    """
    wanted = [Condition("x"), *(Condition(band, radius, feed) for radius in radii for band, feed in READ.items())]
    size = batch_size_of(model, batch_size)
    fed = iter_inputs(images, wanted, colour)
    classes = [logits(model, batch, batch_size=size).argmax(dim=1).tolist() for batch in fed]
    whole, rows = classes[0], []
    for radius, by_low, by_high in zip(radii, classes[1::2], classes[2::2], strict=True):
        columns = zip(labels.tolist(), whole, by_low, by_high, strict=True)
        rows += [
            {"number": number, "radius": radius, "label": label, "whole": seen, "lfc": low, "hfc": high}
            for number, (label, seen, low, high) in enumerate(columns)
        ]
    return rows


REPORT_PARTS = [
    ReportPart("heat_map", heat_map, ("grid", "norm", "seed", "engine"), lambda settings: settings.grid**2 / 2),
    ReportPart("noise", band_noise, ("radii", "norm", "seed"), lambda settings: len(settings.radii) + 1),
    ReportPart("energy", attack_energy, ("radii", "eps", "steps"), lambda settings: 3 * settings.steps),
    ReportPart("misaligned", misaligned_images, ("radii", "colour"), lambda settings: 3 * len(settings.radii)),
    ReportPart("phase", phase_or_amplitude, ("seed",), lambda settings: 1),
    ReportPart("pictures", predictions, ("radii", "colour"), lambda settings: 1 + 2 * len(settings.radii)),
]
