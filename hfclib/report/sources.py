"""Models and data by name, as the command line takes them."""

import difflib
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from hfclib.data.cifar import MEAN, embedded, to_float
from hfclib.runs.store import find, folders, load

log = logging.getLogger(__name__)
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # what torchvision's networks expect


@dataclass(frozen=True)
class Named:
    """A model and how its input is made: normalisation as in `Classifier`, and (resize, crop) in pixels."""

    model: torch.nn.Module
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    sizes: tuple[int, int] = (256, 224)


def named_model(name: str, weights: str | None = None) -> Named:
    """A stored run ("laptop-batchnorm-0"), "torchvision:NAME", "timm:NAME", or "package.module:build".

    Args:
        weights: of torchvision, such as "DEFAULT"; "DEFAULT" for timm's pretrained ones; None draws them at random.
    Raises:
        ValueError: no such model, several runs of that name, or a package that is not installed.
    """
    kind, _, rest = name.partition(":")
    if kind == "torchvision":
        models = _package("torchvision").models
        if rest not in models.list_models():
            near = difflib.get_close_matches(rest, models.list_models(), 3)
            raise ValueError(f"expected a model of torchvision, got {rest!r}; near: {', '.join(near) or 'none'}")
        if not weights:
            return Named(models.get_model(rest), **IMAGENET)
        chosen = models.get_model_weights(rest)[weights]
        steps = chosen.transforms()
        sizes = steps.resize_size[0], steps.crop_size[0]
        return Named(models.get_model(rest, weights=chosen), steps.mean, steps.std, sizes)
    if kind == "timm":
        timm = _package("timm")
        model = timm.create_model(rest, pretrained=bool(weights))
        config = timm.data.resolve_model_data_config(model)
        size = config["input_size"][-1]
        return Named(model, config["mean"], config["std"], (round(size / config["crop_pct"]), size))
    if rest:
        try:
            return Named(resolve_name(name)())
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"expected package.module:build, a function that returns a model, got {name}: {error}"
            ) from error
    found = {path.parent.name: path.parent for folder in folders() for path in sorted(folder.glob("*/run.json"))}
    matching = [one for one in found if one == name or one.startswith(f"{name}-")]
    if len(matching) != 1:
        near = ", ".join(matching or difflib.get_close_matches(name, found, 3)) or "none"
        raise ValueError(
            f"expected one stored run, torchvision:NAME, timm:NAME or module:build, got {name}; near: {near}"
        )
    run = load(found[matching[0]])
    return Named(find(run.recipe, run.seed).model())  # a run may be published without weights, and yours have them


def _package(name: str):
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"expected {name} to be installed: pip install {name}") from error


@dataclass(frozen=True)
class NamedData:
    """Batches (images, labels) that can be read more than once, the mean colour if it is known, and images left out."""

    batches: Iterable
    colour: Sequence[float] | None = None
    skipped: int = 0


def named_data(
    name: str,
    *,
    sizes: tuple[int, int] = (256, 224),
    batch_size: int = 100,
    limit: int | None = None,
    seed: int = 0,
    skip_broken: bool = False,
) -> NamedData:
    """The images of "cifar10-test", or of a folder with one folder per class, in an order drawn from the seed.

    Args:
        sizes: of a folder's images: the shorter side is resized to the first, the centre cut to the second, in pixels.
        limit: only so many images.
        skip_broken: leave out the images of a folder that can't be read, and log their names.
    Raises:
        ValueError, OSError: no such folder, no class in it, or images that can't be read. All are opened once first.
    """
    if name == "cifar10-test":
        images, labels = embedded("test")
        images, labels = images[:limit], labels[:limit]
        return NamedData(
            [
                (to_float(images[i : i + batch_size]), labels[i : i + batch_size])
                for i in range(0, len(labels), batch_size)
            ],
            MEAN,
        )
    if not Path(name).is_dir():
        raise ValueError(f"expected cifar10-test or a folder of images, got {name!r}")
    _package("torchvision")
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = [v2.ToImage(), v2.Resize(sizes[0]), v2.CenterCrop(sizes[1]), v2.ToDtype(torch.float32, scale=True)]
    dataset = ImageFolder(name, v2.Compose(steps), loader=_opened)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:limit].tolist()
    with ThreadPoolExecutor() as pool:
        found = pool.map(_problem, (dataset.samples[place][0] for place in order))
        problems = list(tqdm(found, "opening the images", len(order), disable=None, leave=False))
    broken = [problem for problem in problems if problem]
    if broken and not skip_broken:
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise ValueError(f"{broken[0]}{more}: repair or remove what is broken, or pass --skip-broken")
    for problem in broken:
        log.info("skipped: %s", problem)
    kept = [place for place, problem in zip(order, problems, strict=True) if not problem]
    return NamedData(DataLoader(Subset(dataset, kept), batch_size), skipped=len(broken))


def _opened(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _problem(path: str) -> str | None:
    try:
        _opened(path)
    except (OSError, SyntaxError) as error:  # the second from the chunks of a PNG
        return f"{path} can't be read as an image ({error})"
    return None
