"""Models and data by name, as the command line takes them."""

import hashlib
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from hfclib.batching import BATCH_SIZE, first_logits, logits
from hfclib.data import CLASSES, DATA_SETS
from hfclib.data.cifar import MEAN, embedded, to_float
from hfclib.reporting.datasets import DatasetSpec
from hfclib.reporting.folders import class_folders
from hfclib.reporting.metric import Classifier
from hfclib.reporting.names import check_model, is_file, run_folder
from hfclib.runs.store import find, load

log = logging.getLogger(__name__)
Sizes = tuple[int | tuple[int, int], int]
IMAGENET: dict = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # what torchvision's networks expect
MODES = "RGB", "L"  # Pillow's, in the order in which they are tried where a network's is not known


@dataclass(frozen=True)
class ModelSpec:
    """A model and how its input is made.

    Attributes:
        model: from images in [0, 1]; any callable where a function of the user's gives it.
        mean, std: of the normalisation, as in `Classifier`.
        sizes: (resize, crop) in pixels, as in `named_data`; None if they are not known.
        interpolation: of the resizing, as torchvision calls it.
        mode: Pillow's, "RGB" or "L" (grey); None if it is not known.
    """

    model: Callable
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    sizes: Sizes | None = None
    interpolation: str = "bilinear"
    mode: str | None = "RGB"


def named_model(name: str, weights: str | None = None) -> ModelSpec:
    """A stored run ("laptop-batchnorm-0"), "torchvision:NAME", "timm:NAME", or "package.module:build".

    Args:
        weights: pretrained ones, "DEFAULT" or their name in torchvision or timm; or a file of them, see `load_weights`;
            None draws them at random.
    Raises:
        ValueError: no such model or weights, weights of a run, several runs of that name, a function that fails, or a
            package that is not installed.
    """
    check_model(name, weights)
    kind, _, rest = name.partition(":")
    if not rest:
        run = load(run_folder(name))
        data = DATA_SETS[run.recipe.data.dataset]
        usable = find(run.recipe, run.seed) or run  # it may be published without weights, and one of yours have them
        return ModelSpec(usable.model(), sizes=(data.side, data.side), mode="RGB" if len(data.mean) == 3 else "L")
    build = {"torchvision": _of_torchvision, "timm": _of_timm}.get(kind)
    file = weights if weights and is_file(weights) else None
    if build is None:
        if file is None:
            return ModelSpec(_built(name), mode=None)
        return ModelSpec(load_weights(lambda **options: _built(name, **options), file), mode=None)
    if file is None:
        return build(rest, weights)
    spec = build(rest, None)
    return replace(spec, model=load_weights(lambda **options: build(rest, None, **options).model, file))


def _of_torchvision(name: str, weights: str | None, **options) -> ModelSpec:
    models = _package("torchvision").models
    if not weights:
        return ModelSpec(models.get_model(name, **options), **IMAGENET, sizes=(256, 224))
    known = models.get_model_weights(name).__members__
    if weights not in known:
        raise ValueError(f"expected weights of {name}, a file or one of {', '.join(known)}, got {weights!r}")
    steps = known[weights].transforms()
    sizes = steps.resize_size[0], steps.crop_size[0]
    model = models.get_model(name, weights=known[weights])
    return ModelSpec(model, steps.mean, steps.std, sizes, steps.interpolation.value)


def _of_timm(name: str, weights: str | None, **options) -> ModelSpec:
    timm = _package("timm")
    tagged = name if weights in (None, "DEFAULT") else f"{name}.{weights}"
    try:
        model = timm.create_model(tagged, pretrained=bool(weights), **options)
    except RuntimeError as error:
        raise ValueError(f"expected a model of timm and its weights, got {tagged!r}: {error}") from error
    config = timm.data.resolve_model_data_config(model)
    size = config["input_size"][-1]
    cropped = config["crop_mode"]
    if cropped not in ("center", "squash"):
        raise ValueError(f"expected a model of images with their centre cut out, got {cropped!r} of {name}")
    shorter = math.floor(size / config["crop_pct"])
    sizes = ((shorter, shorter) if cropped == "squash" else shorter), size
    return ModelSpec(model, config["mean"], config["std"], sizes, config["interpolation"])


def _built(name: str, **options) -> Callable:
    try:
        model = resolve_name(name)(**options)
    except Exception as error:  # whatever the user's function raises
        what = f"package.module:build, a function that returns a model, got {name}: {type(error).__name__}: {error}"
        raise ValueError(f"expected {what}") from error
    if not callable(model):
        raise ValueError(f"expected package.module:build, a function that returns a model, {name} gave {model!r}")
    return model


def load_weights(build: Callable[..., Callable], file: str | Path) -> nn.Module:
    """A model with the weights of a file.

    Args:
        build: gives the model; called with `num_classes=` where the last layer in the file has another size.
        file: of safetensors, or of `torch.save`: a state dictionary, or one that holds it as "state_dict" or "model".
            It is read without running code. The prefix "module." of data-parallel training is taken off.
    Raises:
        ValueError: another file, weights of another architecture, or a model that is no module.
    """

    def module(**options) -> nn.Module:
        model = build(**options)
        if not isinstance(model, nn.Module):
            raise ValueError(f"expected a module for the weights in {file}, got {type(model).__name__}")
        return model

    state, model = _state(Path(file)), module()
    mine = model.state_dict()
    if set(mine) != set(state):
        names = {"lacks": set(mine) - set(state), "has besides": set(state) - set(mine)}
        told = "; ".join(f"it {what} {', '.join(sorted(some)[:3])}" for what, some in names.items() if some)
        raise ValueError(f"expected the weights of that model in {file}: {told}")
    other = [name for name in mine if mine[name].shape != state[name].shape]
    if other and len(other) <= 2 and other == list(mine)[-len(other) :]:
        classes = len(state[other[-1]])
        log.info("%d classes, as in %s", classes, file)
        model = module(num_classes=classes)
        mine = model.state_dict()
        other = [name for name in mine if mine[name].shape != state[name].shape]
    if other:
        shapes = f"{tuple(mine[other[0]].shape)}, got {tuple(state[other[0]].shape)}"
        raise ValueError(f"expected weights of that model in {file}: {other[0]} of shape {shapes}")
    model.load_state_dict(state)
    return model


def _state(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"expected a file of weights, of safetensors or of torch.save, got {file}: {told}") from error
    for holder in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(holder), Mapping):
            state = state[holder]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"expected a state dictionary in {file}, got {type(state).__name__}")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _package(name: str) -> ModuleType:
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"expected {name} to be installed: pip install {name}") from error


class Pictures(Dataset):
    """Pictures in files, with labels, as tensors.

    Args:
        files, labels: paths, and a whole number for each.
        sizes, interpolation, mode: as in `named_data`, mode one of MODES.
    """

    def __init__(
        self, files: Sequence[str], labels: Sequence[int], sizes: Sizes | None, interpolation: str, mode: str
    ) -> None:
        _package("torchvision")
        from torchvision.transforms import v2

        self.files, self.labels, self.mode = list(files), list(labels), mode
        steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        if sizes:
            steps[1:1] = [v2.Resize(sizes[0], v2.InterpolationMode(interpolation)), v2.CenterCrop(sizes[1])]
        self.transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.transform(_opened(self.files[place], self.mode)), self.labels[place]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a folder of pictures is read.

    Attributes:
        sizes: the shorter side, or both, are resized to the first, the centre cut to the second, in pixels. None takes
            pictures as they are, if all are of one size.
        interpolation: as in `ModelSpec`.
        mode: as in `ModelSpec`; None takes the first of MODES that the network can be fed.
        limit: only so many pictures.
        seed: of their order.
        skip_broken: leave out those that can't be read, and log their names.
        class_map: see `class_folders`.
        unlabelled: the folder has pictures anywhere in it, and no labels.
        workers: processes that read, beside this one.
        network: whose number of logits has to be that of the folders, or above the indices of a class map; None does
            not check it.
    """

    sizes: Sizes | None = None
    interpolation: str = "bilinear"
    mode: str | None = "RGB"
    limit: int | None = None
    seed: int = 0
    skip_broken: bool = False
    class_map: str | Path | None = None
    unlabelled: bool = False
    workers: int = 0
    network: Classifier | None = None


def named_data(name: str, reading: Reading | None = None, **options) -> DatasetSpec:
    """The images of "cifar10-test", or in an order drawn from the seed those of a folder with one folder per class.

    Args:
        name: of the data.
        reading: how a folder is read; of "cifar10-test" only the limit counts, and whether it is unlabelled.
        options: fields of `Reading`, such as `sizes=(256, 224)`, in place of those in reading.
    Raises:
        ValueError, OSError: no such folder, as `class_folders`, another number of classes than the network has, or
            images that can't be read. All are opened once first.
    """
    reading = replace(reading or Reading(), **options)
    if name == "cifar10-test":
        images, labels = (part[: reading.limit].split(BATCH_SIZE) for part in embedded("test"))
        if reading.class_map:
            raise ValueError(f"expected a class map with a folder of images only, got {reading.class_map} with {name}")
        batches = list(zip(map(to_float, images), labels, strict=True))
        about: dict = {"name": "the test images of CIFAR-10", "classes": dict(enumerate(CLASSES))}
        return replace(DatasetSpec.of(batches, unlabelled=reading.unlabelled), colour=MEAN, **about)
    if not Path(name).is_dir():
        raise ValueError(f"expected cifar10-test or a folder of images, got {name!r}")
    indices = {} if reading.unlabelled else class_folders(name, reading.class_map)
    files, labels = _listed(Path(name), indices, reading.unlabelled)
    generator = torch.Generator("cpu").manual_seed(reading.seed)
    order = torch.randperm(len(files), generator=generator, device="cpu")[: reading.limit].tolist()
    files, labels = [files[place] for place in order], [labels[place] for place in order]
    network = reading.network
    if network is not None:
        reading = replace(reading, mode=_fitting_mode(reading, network, files))
        if indices:
            _check_classes(reading, network, files, indices, name)
    files, labels, pictures_sha256 = _readable(files, labels, reading)
    if indices:
        _tell_classes(indices, reading.class_map)
    pictures = _pictures(reading, files, labels)
    return DatasetSpec(
        DataLoader(pictures, BATCH_SIZE, num_workers=reading.workers),
        name=Path(name).resolve().name,
        skipped=len(order) - len(files),
        pictures_sha256=pictures_sha256,
        classes={index: folder for folder, index in indices.items()},
        files=files,
        count=len(files),
        unlabelled=reading.unlabelled,
    )


def _listed(root: Path, indices: Mapping[str, int], unlabelled: bool) -> tuple[list[str], list[int]]:
    """The pictures in a folder, in order, and their classes; without labels all pictures in it, of class 0."""
    readable = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    paths = []
    for folder, folders, names in os.walk(root, followlinks=True):
        # A link to a folder above would show the same pictures again.
        folders[:] = [one for one in folders if not Path(folder).resolve().is_relative_to(Path(folder, one).resolve())]
        paths += [Path(folder) / name for name in names]
    paths.sort()
    others = [path for path in paths if path.suffix.lower() not in readable]
    if others:
        log.warning("left out %d files that are no pictures, such as %s", len(others), others[0])
    pictures = [path for path in paths if path.suffix.lower() in readable]
    pictures = [path for path in pictures if not any(part[0] == "." for part in path.relative_to(root).parts)]
    if not unlabelled:
        by_class = [(indices.get(path.relative_to(root).parts[0]), path) for path in pictures]
        labelled = [(index, path) for index, path in by_class if index is not None]
        pictures, labels = [path for _, path in labelled], [index for index, _ in labelled]
        if empty := [folder for folder, index in indices.items() if index not in labels]:
            raise ValueError(f"expected pictures in each folder of {root}, got none in {', '.join(empty[:3])}")
    if not pictures:
        raise ValueError(f"expected pictures in {root}, got none")
    return list(map(str, pictures)), [0] * len(pictures) if unlabelled else labels


def _pictures(reading: Reading, files: Sequence[str], labels: Sequence[int]) -> Pictures:
    return Pictures(files, labels, reading.sizes, reading.interpolation, reading.mode or MODES[0])


def _readable(files: list[str], labels: list[int], reading: Reading) -> tuple[list[str], list[int], str]:
    """The files that can be opened, their labels, and the digest of both; each file is opened once."""
    with ThreadPoolExecutor() as pool:
        opened = list(tqdm(pool.map(_opened_once, files), "opening the images", len(files), disable=None, leave=False))
    broken = [result for result in opened if isinstance(result, str)]
    if broken and not reading.skip_broken:
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise ValueError(f"{broken[0]}{more}: repair or remove what is broken, or pass --skip-broken")
    for problem in broken:
        log.info("skipped: %s", problem)
    sound = [
        (file, label, *result)
        for file, label, result in zip(files, labels, opened, strict=True)
        if not isinstance(result, str)
    ]
    seen = {size for _, _, size, _ in sound}
    if not reading.sizes and len(seen) > 1:
        raise ValueError("expected a size for images of different sizes: pass --size")
    least = min(map(min, seen), default=0)
    if reading.sizes and least < np.min(reading.sizes[0]):
        told = "images of %d pixels are enlarged to %s, which adds no detail: --size takes less"
        log.warning(told, least, reading.sizes[0])
    lines = sorted(f"{sha256} {label}" for _, label, _, sha256 in sound)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return [file for file, *_ in sound], [label for _, label, *_ in sound], digest


def _tell_classes(indices: Mapping[str, int], class_map: str | Path | None) -> None:
    shown = [f"{folder} ({index})" if class_map else folder for folder, index in indices.items()]
    told = "in the order of the logits" + (", sorted as numbers" if all(map(str.isdigit, indices)) else "")
    told = "by the class map" if class_map else told
    log.info("%d classes, %s: %s", len(shown), told, ", ".join(shown[:12]))


def _first_pair(reading: Reading, files: Sequence[str]) -> Tensor | None:
    """The first picture that can be read, twice, as the network is fed it; None if there is none."""
    for file in files:
        try:
            picture, _ = _pictures(reading, [file], [0])[0]
        except Exception:  # Pillow raises many kinds; what is broken is named when all are opened
            continue
        return torch.stack([picture, picture])
    return None


def _fitting_mode(reading: Reading, network: Classifier, files: Sequence[str]) -> str:
    """The mode if it is known, else the first that the network can be fed; "RGB" if that is none."""
    if reading.mode is not None:
        return reading.mode
    for mode in MODES:
        pair = _first_pair(replace(reading, mode=mode), files)
        try:
            if pair is not None:
                logits(network, pair)
        except (RuntimeError, ValueError):  # of channels that don't fit; what else is wrong is told later
            continue
        if mode == "L":
            log.info("the network takes one channel: pictures are read in grey")
        return mode
    return MODES[0]


def _check_classes(
    reading: Reading, network: Classifier, files: Sequence[str], folders: Mapping[str, int], root: str
) -> None:
    """Refuse folders that are not the network's classes, by its logits for the first picture that can be read."""
    pair = _first_pair(reading, files)
    if pair is None:
        return
    classes, class_map = first_logits(network, pair).shape[1], reading.class_map
    if class_map and max(folders.values()) >= classes:
        told = f"class indices below {classes}, the number of logits"
        raise ValueError(f"expected {told}, in {class_map}, got {max(folders.values())} for {list(folders)[-1]}")
    if not class_map and len(folders) != classes:
        advice = "--class-map FILE, JSON or CSV, says the class index of each folder"
        raise ValueError(f"expected {classes} folders in {root}, one per logit, got {len(folders)}: {advice}")


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
