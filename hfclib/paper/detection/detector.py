"""The detector: torchvision's RetinaNet on a narrow ResNet-18 with a feature pyramid, and the loop that trains it."""

import json
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hfclib._files import sha256
from hfclib.data import to_float
from hfclib.paper.detection.bccd import BCCD_CLASSES, BCCD_IMAGES
from hfclib.training.checkpoint import restore_checkpoint, save_checkpoint
from hfclib.training.loop import Progress, TrainingError, seeded


@dataclass(frozen=True)
class DetectionRecipe:
    """How a detector is trained and measured.

    Attributes:
        preset: its name.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        pyramid: channels of the feature pyramid and of the heads, a multiple of 8.
        size: width and height of the images, in pixels.
        anchor: side of the smallest anchor box, in pixels.
        epochs, batch_size: of the training.
        learning_rate, weight_decay: of AdamW; the rate is the highest one of a single cycle.
        train_images, test_images: how many of the 292 and 72 are used.
        radii: at which the bands are measured, in DFT bins of images of `size`.
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
    train_images: int = BCCD_IMAGES["trainval"]
    test_images: int = BCCD_IMAGES["test"]
    radii: tuple[int, ...] = (4, 8, 12, 16, 24, 32, 48, 64)

    @property
    def name(self) -> str:
        """The preset's name, under which the book shows its runs."""
        return self.preset

    def run_name(self, seed: int | str) -> str:
        """The folder of a run, or a pattern of such names: preset, seed and a hash of the recipe."""
        return f"{self.preset}-{seed}-{sha256(json.dumps(asdict(self)).encode())[:8]}"


# Rate and batch of "laptop" were chosen by the mAP of whole images: after 12 epochs on 205 of the training images, the
# other 87 gave .41 with batches of 4, and .35 with batches of 8 at twice the rate.
DETECTION_PRESETS = {
    "laptop": DetectionRecipe("laptop"),
    # Not narrower: in the gradient of a 1 x 1 convolution of stride 2 with fewer than 16 channels oneDNN writes beyond
    # its memory on some processors.
    "smoke": DetectionRecipe("smoke", 16, 24, (120, 90), 8, 4, train_images=48, test_images=8, radii=(8, 24, 48)),
}


class _Pyramid(nn.Module):
    """ResNet-18 with a small stem, and a feature pyramid on its last three stages."""

    def __init__(self, width: int, out_channels: int) -> None:
        # Imported here and below: a second that every notebook would wait for, since its scoreboard knows all chapters.
        from torchvision.models.resnet import BasicBlock
        from torchvision.ops import FeaturePyramidNetwork

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
            features = maps[str(number)] = stage(features)
        del maps["0"]
        return self.pyramid(maps)


def build_detector(recipe: DetectionRecipe) -> nn.Module:
    """An untrained detector, torchvision's `RetinaNet`.

    Returns:
        A network that takes a list of images (3, H, W) in [0, 1]. In training mode it also takes targets, as from
        `load_bccd`, and returns two losses; in evaluation mode it returns for each image up to 100 "boxes" in pixels,
        "scores" and "labels". Nine anchors per place: three sizes a third of an octave apart, three shapes.
    """
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.retinanet import RetinaNetHead

    # Three levels: steps of 8, 16 and 32 pixels.
    sizes = tuple(tuple(round(recipe.anchor * 2 ** (level + n / 3)) for n in range(3)) for level in range(3))
    # The group normalisation makes the heads train at a high learning rate with small batches.
    head = RetinaNetHead(recipe.pyramid, 9, len(BCCD_CLASSES) + 1, norm_layer=partial(nn.GroupNorm, 8))
    return RetinaNet(
        _Pyramid(recipe.width, recipe.pyramid),
        len(BCCD_CLASSES) + 1,
        min_size=recipe.size[1],
        max_size=recipe.size[0],
        anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 3),
        head=head,
        detections_per_img=100,
    ).to(memory_format=torch.channels_last)


def flipped(image: Tensor, target: dict, flips: Sequence[bool]) -> tuple[Tensor, dict]:
    """An image (3, H, W) and its target, mirrored: from left to right, and upside down."""
    boxes = target["boxes"].clone()
    for axis, flip in enumerate(flips):
        if flip:
            image = image.flip(-1 - axis)
            boxes[:, [axis, axis + 2]] = image.shape[-1 - axis] - boxes[:, [axis + 2, axis]]
    return image, target | {"boxes": boxes}


def fit_detector(
    recipe: DetectionRecipe,
    images: Tensor,
    targets: list[dict],
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path,
    commit: str = "none",
) -> tuple[nn.Module, Progress]:
    """Train a detector, or go on with its training.

    Args:
        recipe: how.
        images, targets: from `load_bccd`.
        seed: of the weights, the order and the flips.
        device: where to train.
        checkpoint: file that is replaced after every epoch; if it exists, the training goes on from it.
        commit: of the code, for the record.
    Returns:
        (the trained detector on `device`, its Progress with the mean losses of every epoch). Resumed on a CPU, it has
        the same weights bit for bit.
    Raises:
        TrainingError, CheckpointError: the loss is not finite; the checkpoint is damaged.
    """
    with seeded(seed):
        model = build_detector(recipe)
    model.to(device).train()
    images = to_float(images).to(device)
    targets = [{key: value.to(device) for key, value in target.items()} for target in targets]
    batches = math.ceil(len(images) / recipe.batch_size)

    def cycle(step: int) -> float:
        """The learning rate relative to the highest: a linear rise over a fifth of the steps, then a half cosine."""
        done = (step // batches + step % batches / batches) / recipe.epochs
        return 0.04 + 0.96 * done / 0.2 if done < 0.2 else (1 + math.cos(math.pi * (done - 0.2) / 0.8)) / 2

    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, cycle)
    state = restore_checkpoint(checkpoint, model, optimizer, scheduler)
    state.commits = list(dict.fromkeys([*state.commits, commit]))
    for epoch in tqdm(range(state.epoch, recipe.epochs), desc=recipe.run_name(seed), disable=None):
        start = time.perf_counter()
        # The random numbers of an epoch depend on (seed, epoch) only, so that resuming needs no stored state.
        rng = np.random.default_rng([seed, epoch])
        sums = {"classification": 0.0, "bbox_regression": 0.0}
        for batch in np.array_split(rng.permutation(len(images)), batches):
            flips = rng.random((len(batch), 2)) < 0.5
            pairs = [flipped(images[i], targets[i], flip) for i, flip in zip(batch.tolist(), flips, strict=True)]
            losses = model(*map(list, zip(*pairs, strict=True)))
            loss = sum(losses.values())
            if not torch.isfinite(loss):
                raise TrainingError(f"the loss of {recipe.run_name(seed)} is {loss.item()} in epoch {epoch + 1}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            sums = {name: sums[name] + losses[name].item() * len(batch) / len(images) for name in sums}
        state.epoch = epoch + 1
        state.rows.append({"epoch": epoch + 1, **sums})
        state.train_seconds += time.perf_counter() - start
        save_checkpoint(checkpoint, model, optimizer, scheduler, state)
    return model, state
