"""Models and data by name, as the command line takes them."""

import hashlib
import logging
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from hfclib.batching import BATCH_SIZE, first_logits
from hfclib.data import DATA_SETS
from hfclib.data.cifar import MEAN, embedded, to_float
from hfclib.report.folders import class_folders
from hfclib.report.metric import Classifier
from hfclib.report.names import check_model, run_folder
from hfclib.runs.store import find, load

log = logging.getLogger(__name__)
Sizes = tuple[int | tuple[int, int], int]
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # what torchvision's networks expect


@dataclass(frozen=True)
class Named:
    """A model and how its input is made.

    Attributes:
        model: from images in [0, 1].
        mean, std: of the normalisation, as in `Classifier`.
        sizes: (resize, crop) in pixels, as in `named_data`; None if they are not known.
        interpolation: of the resizing, as torchvision calls it.
        mode: Pillow's, "RGB" or "L" (grey).
    """

    model: torch.nn.Module
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    sizes: Sizes | None = None
    interpolation: str = "bilinear"
    mode: str = "RGB"


def named_model(name: str, weights: str | None = None) -> Named:
    """A stored run ("laptop-batchnorm-0"), "torchvision:NAME", "timm:NAME", or "package.module:build".

    Args:
        weights: pretrained ones, "DEFAULT" or their name in torchvision or timm; None draws them at random.
    Raises:
        ValueError: no such model or weights, weights of a run or function, several runs of that name, a function that
            fails, or a package that is not installed.
    """
    check_model(name, weights)
    kind, _, rest = name.partition(":")
    if kind == "torchvision":
        models = _package("torchvision").models
        if not weights:
            return Named(models.get_model(rest), **IMAGENET, sizes=(256, 224))
        known = models.get_model_weights(rest).__members__
        if weights not in known:
            raise ValueError(f"expected weights of {rest}, one of {', '.join(known)}, got {weights!r}")
        steps = known[weights].transforms()
        sizes = steps.resize_size[0], steps.crop_size[0]
        model = models.get_model(rest, weights=known[weights])
        return Named(model, steps.mean, steps.std, sizes, steps.interpolation.value)
    if kind == "timm":
        timm = _package("timm")
        tagged = rest if weights in (None, "DEFAULT") else f"{rest}.{weights}"
        try:
            model = timm.create_model(tagged, pretrained=bool(weights))
        except RuntimeError as error:
            raise ValueError(f"expected a model of timm and its weights, got {tagged!r}: {error}") from error
        config = timm.data.resolve_model_data_config(model)
        size = config["input_size"][-1]
        cropped = config["crop_mode"]
        if cropped not in ("center", "squash"):
            raise ValueError(f"expected a model of images with their centre cut out, got {cropped!r} of {rest}")
        shorter = math.floor(size / config["crop_pct"])
        sizes = ((shorter, shorter) if cropped == "squash" else shorter), size
        return Named(model, config["mean"], config["std"], sizes, config["interpolation"])
    if rest:
        try:
            model = resolve_name(name)()
        except Exception as error:  # whatever the user's function raises
            what = f"package.module:build, a function that returns a model, got {name}: {type(error).__name__}: {error}"
            raise ValueError(f"expected {what}") from error
        if not callable(model):
            raise ValueError(f"expected package.module:build, a function that returns a model, {name} gave {model!r}")
        return Named(model)
    run = load(run_folder(name))
    data = DATA_SETS[run.recipe.data]
    model = find(run.recipe, run.seed).model()  # a run may be published without weights, and yours have them
    return Named(model, sizes=(data.side, data.side), mode="RGB" if len(data.mean) == 3 else "L")


def _package(name: str):
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"expected {name} to be installed: pip install {name}") from error


@dataclass(frozen=True)
class NamedData:
    """Data by name.

    Attributes:
        batches: (images, labels), which can be read more than once.
        colour: the mean colour, if it is known.
        skipped: the number of images left out.
        pictures_sha256: of a folder's files and their labels, in whatever size and order they are read.
    """

    batches: Iterable
    colour: Sequence[float] | None = None
    skipped: int = 0
    pictures_sha256: str | None = None


def named_data(
    name: str,
    *,
    sizes: Sizes | None = None,
    interpolation: str = "bilinear",
    mode: str = "RGB",
    limit: int | None = None,
    seed: int = 0,
    skip_broken: bool = False,
    class_map: str | Path | None = None,
    network: Classifier | None = None,
) -> NamedData:
    """The images of "cifar10-test", or in an order drawn from the seed those of a folder with one folder per class.

    Args:
        sizes: of a folder's images: the shorter side, or both, are resized to the first, the centre cut to the second,
            in pixels. None takes them as they are, if all are of one size.
        interpolation, mode: of a folder's images, as in `Named`.
        limit: only so many images.
        skip_broken: leave out the images of a folder that can't be read, and log their names.
        class_map: see `class_folders`.
        network: whose number of logits has to be that of the folders, or above the indices of a class map; None does
            not check it.
    Raises:
        ValueError, OSError: no such folder, as `class_folders`, another number of classes than the network has, or
            images that can't be read. All are opened once first.
    """
    if name == "cifar10-test":
        images, labels = (part[:limit].split(BATCH_SIZE) for part in embedded("test"))
        if class_map:
            raise ValueError(f"expected a class map with a folder of images only, got {class_map} with {name}")
        return NamedData(list(zip(map(to_float, images), labels, strict=True)), MEAN)
    if not Path(name).is_dir():
        raise ValueError(f"expected cifar10-test or a folder of images, got {name!r}")
    indices = class_folders(name, class_map)
    _package("torchvision")
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    class Folder(ImageFolder):
        def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
            return list(indices), indices

    steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    if sizes:
        steps[1:1] = [v2.Resize(sizes[0], v2.InterpolationMode(interpolation)), v2.CenterCrop(sizes[1])]
    readable = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    others = [path for path in sorted(Path(name).rglob("*")) if path.is_file() and path.suffix.lower() not in readable]
    if others:
        log.warning("left out %d files that are no pictures, such as %s", len(others), others[0])
    options = {"transform": v2.Compose(steps), "loader": partial(_opened, mode=mode)}
    dataset = Folder(name, is_valid_file=lambda path: Path(path).suffix.lower() in readable, **options)
    generator = torch.Generator("cpu").manual_seed(seed)
    order = torch.randperm(len(dataset), generator=generator, device="cpu")[:limit].tolist()
    if network is not None:
        _check_classes(network, dataset, order, name, class_map)
    with ThreadPoolExecutor() as pool:
        found = pool.map(_opened_once, (dataset.samples[place][0] for place in order))
        found = list(tqdm(found, "opening the images", len(order), disable=None, leave=False))
    broken = [result for result in found if isinstance(result, str)]
    if broken and not skip_broken:
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise ValueError(f"{broken[0]}{more}: repair or remove what is broken, or pass --skip-broken")
    for problem in broken:
        log.info("skipped: %s", problem)
    shown = [f"{folder} ({index})" if class_map else folder for folder, index in indices.items()]
    told = "in the order of the logits" + (", sorted as numbers" if all(map(str.isdigit, indices)) else "")
    told = "by the class map" if class_map else told
    log.info("%d classes, %s: %s", len(shown), told, ", ".join(shown[:12]))
    kept = [place for place, result in zip(order, found, strict=True) if not isinstance(result, str)]
    sizes_seen, digests = (
        zip(*(result for result in found if not isinstance(result, str)), strict=True) if kept else ((), ())
    )
    if not sizes and len(set(sizes_seen)) > 1:
        raise ValueError("expected a size for images of different sizes: pass --size")
    least = min(map(min, sizes_seen), default=0)
    if sizes and least < np.min(sizes[0]):
        log.warning("images of %d pixels are enlarged to %s, which adds no detail: --size takes less", least, sizes[0])
    lines = sorted(f"{digest} {dataset.targets[place]}" for digest, place in zip(digests, kept, strict=True))
    pictures_sha256 = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    batches = DataLoader(Subset(dataset, kept), BATCH_SIZE)
    return NamedData(batches, skipped=len(broken), pictures_sha256=pictures_sha256)


def _check_classes(network: Classifier, dataset, order: Sequence[int], root: str, class_map) -> None:
    """Refuse folders that are not the network's classes, by its logits for the first picture that can be read."""
    for place in order:
        try:
            picture, _ = dataset[place]
        except Exception:  # Pillow raises many kinds; what is broken is named when all are opened
            continue
        classes, folders = first_logits(network, torch.stack([picture, picture])).shape[1], dataset.class_to_idx
        if class_map and max(folders.values()) >= classes:
            told = f"class indices below {classes}, the number of logits"
            raise ValueError(f"expected {told}, in {class_map}, got {max(folders.values())} for {list(folders)[-1]}")
        if not class_map and len(folders) != classes:
            advice = "--class-map FILE, JSON or CSV, says the class index of each folder"
            raise ValueError(f"expected {classes} folders in {root}, one per logit, got {len(folders)}: {advice}")
        return


def _opened(path: str, mode: str = "RGB") -> Image.Image:
    with Image.open(path) as image:
        if image.mode.startswith("I;16"):  # which Pillow would clip to 8 bits
            image = Image.fromarray((np.asarray(image, np.float32) / 257).round().astype(np.uint8))
        if image.mode in ("I", "F"):
            raise ValueError(f"its values have no known range (mode {image.mode})")
        return image.convert(mode)


def _opened_once(path: str) -> tuple[tuple[int, int], str] | str:
    """The size of a picture and the SHA-256 of its file; or, if it can't be read, what is wrong."""
    try:
        return _opened(path).size, hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except Exception as error:  # Pillow raises many kinds, also for pictures that are too large
        return f"{path} can't be read as an image ({error})"
