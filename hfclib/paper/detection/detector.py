"""The detector: torchvision's RetinaNet on a narrow ResNet-18 with a feature pyramid, and the loop that trains it."""

import json
import math
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as parsed
from safetensors.torch import save as serialized
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FeaturePyramidNetwork
from tqdm import tqdm

from hfclib.files import sha256, write
from hfclib.paper.detection.bccd import CLASSES, FILE_SIZE, IMAGES, to_float

_LIMITS = {
    "width": (8, 512),
    "pyramid": (8, 512),
    "size": (32, FILE_SIZE[0]),
    "anchor": (4, 128),
    "epochs": (1, 10_000),
    "batch_size": (1, IMAGES["trainval"]),
    "train_images": (1, IMAGES["trainval"]),
    "test_images": (1, IMAGES["test"]),
    "radii": (1, FILE_SIZE[0]),
}
_LEVELS = 3  # of the pyramid: steps of 8, 16 and 32 pixels


class TrainingError(RuntimeError):
    """A training that cannot go on, or a checkpoint that cannot be used."""


@dataclass(frozen=True)
class Settings:
    """How a detector is trained and measured.

    Attributes:
        preset: its name.
        width: channels of the first stage; the others have 2, 4 and 8 times as many. A multiple of 8.
        pyramid: channels of the feature pyramid and of the heads. A multiple of 8, the groups of their GroupNorm.
        size: width and height of the images, in pixels, at least 32 and at most 640 and 480.
        anchor: side of the smallest anchor box, in pixels.
        epochs, batch_size: of the training.
        learning_rate: the highest one of a single cycle of AdamW.
        weight_decay: of AdamW.
        train_images, test_images: how many of the 292 and 72 are used.
        radii: at which the bands are measured, in DFT bins of images of `size`.
    Raises:
        ValueError: one of them is out of range.
    """

    preset: str
    width: int = 16
    pyramid: int = 48
    size: tuple[int, int] = (240, 180)
    anchor: int = 16
    epochs: int = 60
    batch_size: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    train_images: int = IMAGES["trainval"]
    test_images: int = IMAGES["test"]
    radii: tuple[int, ...] = (4, 8, 12, 16, 24, 32, 48, 64)

    def __post_init__(self) -> None:
        # Lists become tuples, so that settings read from JSON equal those that were written.
        object.__setattr__(self, "size", tuple(self.size))
        object.__setattr__(self, "radii", tuple(self.radii))
        for name, (least, most) in _LIMITS.items():
            values = getattr(self, name)
            values = values if isinstance(values, tuple) else (values,)
            if not values or not all(type(value) is int and least <= value <= most for value in values):
                raise ValueError(f"expected {name}, whole, from {least} to {most}, got {getattr(self, name)!r}")
        if self.width % 8 or self.pyramid % 8 or len(self.size) != 2 or self.size[1] > FILE_SIZE[1]:
            raise ValueError(f"expected width and pyramid, multiples of 8, and size, at most {FILE_SIZE}, got {self}")
        if not (0 < self.learning_rate < 1 and 0 <= self.weight_decay < 1):
            raise ValueError(f"expected learning_rate and weight_decay from 0 to 1, got {self}")

    def run_name(self, seed: int) -> str:
        """The folder of a run: preset, seed and a hash of the settings."""
        return f"{self.preset}-{seed}-{sha256(json.dumps(asdict(self)).encode())[:8]}"


# Rate and batch of "laptop" were chosen by the mAP of whole images: after 12 epochs on 205 of the training images, the
# other 87 gave .41 with batches of 4, and .35 with batches of 8 at twice the rate.
PRESETS = {
    "laptop": Settings("laptop"),
    "smoke": Settings(
        "smoke",
        width=8,
        pyramid=24,
        size=(120, 90),
        anchor=8,
        epochs=10,
        train_images=48,
        test_images=8,
        radii=(8, 24, 48),
    ),
}


class _Pyramid(nn.Module):
    """ResNet-18 with a small stem, and a feature pyramid on its last three stages."""

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(width)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False), norm, nn.ReLU(inplace=True))
        self.stages = nn.ModuleList()
        channels = width
        for stage in range(4):
            wider = width * 2**stage
            shortcut = nn.Sequential(nn.Conv2d(channels, wider, 1, stride=2, bias=False), nn.BatchNorm2d(wider))
            self.stages.append(nn.Sequential(BasicBlock(channels, wider, 2, shortcut), BasicBlock(wider, wider)))
            channels = wider
        self.pyramid = FeaturePyramidNetwork([width * 2**stage for stage in range(1, 4)], out_channels)
        self.out_channels = out_channels  # RetinaNet asks for it

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        features, maps = self.stem(images), OrderedDict()
        for number, stage in enumerate(self.stages):
            features = stage(features)
            if number > 0:
                maps[str(number)] = features
        return self.pyramid(maps)


def build(settings: Settings) -> RetinaNet:
    """An untrained detector.

    Returns:
        A network that takes a list of images (3, H, W) in [0, 1]. In training mode it also takes targets, as from
        `bccd.load`, and returns two losses; in evaluation mode it returns for each image up to 100 "boxes" in pixels,
        "scores" and "labels". Nine anchors per place: three sizes a third of an octave apart, three shapes.
    """
    sizes = tuple(
        tuple(round(settings.anchor * 2 ** (level + third / 3)) for third in range(3)) for level in range(_LEVELS)
    )
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * _LEVELS)
    # The group normalisation makes the heads train at a high learning rate with small batches.
    head = RetinaNetHead(settings.pyramid, 9, len(CLASSES) + 1, norm_layer=partial(nn.GroupNorm, 8))
    return RetinaNet(
        _Pyramid(settings.width, settings.pyramid),
        len(CLASSES) + 1,
        min_size=settings.size[1],
        max_size=settings.size[0],
        anchor_generator=anchors,
        head=head,
        detections_per_img=100,
    ).to(memory_format=torch.channels_last)


@dataclass
class Progress:
    """How far a training has come: epochs done, one row of losses per epoch, seconds, and the commits that ran."""

    epoch: int = 0
    rows: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    commits: list[str] = field(default_factory=list)


def save_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Replace the checkpoint; it starts with the SHA-256 of the rest."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{key}": value for key, value in state.items()}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"run": path.parent.name, "progress": json.dumps(asdict(progress))}
    content = serialized(tensors, metadata)
    write(path, sha256(content).encode() + content)


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Fill model and optimizer from the checkpoint, and return how far it is; a new Progress if there is none.

    Raises:
        TrainingError: the checkpoint is damaged or belongs to another run.
    """
    if not path.exists():
        return Progress()
    try:
        seal, content = (raw := path.read_bytes())[:64], raw[64:]
        if seal != sha256(content).encode():
            raise ValueError("its checksum does not fit")
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        if header["run"] != path.parent.name:
            raise ValueError(f"it belongs to {header['run']}")
        tensors, progress = parsed(content), Progress(**json.loads(header["progress"]))
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise TrainingError(f"{path} is damaged ({error}): delete it, and the training starts again") from error
    model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model/")})
    state: dict[int, dict] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, number, key = name.split("/")
            state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return progress


def _rate(settings: Settings, done: float) -> float:
    """The learning rate after a share `done` of the training: a linear rise over a fifth of it, then a half cosine."""
    if done < 0.2:
        return settings.learning_rate * (0.04 + 0.96 * done / 0.2)
    return settings.learning_rate * (1 + math.cos(math.pi * (done - 0.2) / 0.8)) / 2


def flipped(image: Tensor, target: dict, *, horizontal: bool, vertical: bool) -> tuple[Tensor, dict]:
    """An image (3, H, W) and its target, mirrored."""
    (height, width), boxes = image.shape[-2:], target["boxes"]
    if horizontal:
        image = image.flip(-1)
        boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
    if vertical:
        image = image.flip(-2)
        boxes = torch.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], dim=1)
    return image, target | {"boxes": boxes}


def fit(
    settings: Settings,
    images: Tensor,
    targets: list[dict],
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path,
    commit: str = "none",
    progress: bool = True,
) -> tuple[RetinaNet, Progress]:
    """Train a detector, or go on with its training.

    Args:
        settings: how.
        images, targets: from `bccd.load`.
        seed: of the weights, the order and the flips.
        device: where to train.
        checkpoint: file that is replaced after every epoch; if it exists, the training goes on from it.
        commit: of the code, for the record.
        progress: show a bar.
    Returns:
        (the trained detector on `device`, its Progress). Resumed on a CPU, it has the same weights bit for bit.
    Raises:
        TrainingError: the loss is not finite, or the checkpoint is damaged.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(settings)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=settings.weight_decay)
    state = load_checkpoint(checkpoint, model, optimizer)
    state.commits = list(dict.fromkeys([*state.commits, commit]))
    images = to_float(images).to(device)
    batches = math.ceil(len(images) / settings.batch_size)
    for epoch in tqdm(range(state.epoch, settings.epochs), desc=settings.run_name(seed), disable=not progress):
        start = time.perf_counter()
        # The random numbers of an epoch depend on (seed, epoch) only, so that resuming needs no stored state.
        rng = np.random.default_rng([seed, epoch])
        sums = {"classification": 0.0, "bbox_regression": 0.0}
        for step, batch in enumerate(np.array_split(rng.permutation(len(images)), batches)):
            flips = rng.random((len(batch), 2)) < 0.5
            pairs = [
                flipped(images[index], targets[index], horizontal=bool(flip[0]), vertical=bool(flip[1]))
                for index, flip in zip(batch.tolist(), flips, strict=True)
            ]
            targets_there = [{key: value.to(device) for key, value in target.items()} for _, target in pairs]
            losses = model([image for image, _ in pairs], targets_there)
            loss = sum(losses.values())
            if not torch.isfinite(loss):
                raise TrainingError(f"the loss of {settings.run_name(seed)} is {loss.item()} in epoch {epoch + 1}")
            for group in optimizer.param_groups:
                group["lr"] = _rate(settings, (epoch + step / batches) / settings.epochs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for name in sums:
                sums[name] += losses[name].item() * len(batch) / len(images)
        state.epoch = epoch + 1
        state.rows.append({"epoch": epoch + 1, **sums})
        state.seconds += time.perf_counter() - start
        save_checkpoint(checkpoint, model, optimizer, state)
    return model, state
