"""The images that a recipe trains on and is measured on."""

import numpy as np
import torch
from torch import Tensor

from hfclib.data import DATA_SETS, to_float
from hfclib.training.planted import planted
from hfclib.training.recipe import Recipe

SHUFFLE_SEED = 0  # of the permutation of the labels, one for all seeds of a training


def training_set(recipe: Recipe, *, progress: bool = True) -> tuple[Tensor, Tensor]:
    """The recipe's training images and labels: embedded images where they are enough.

    Shuffled labels are those of these images in a permuted order: every class keeps its number of images, and about a
    tenth of the images keep their label.

    Returns:
        images (N, C, H, W), uint8, or float16 near [0, 1] with a planted signal; labels (N,) int64.
    Raises:
        DataError, ValueError: the full training set is needed and not to be had, or has fewer images.
    """
    data = recipe.data
    source, count = DATA_SETS[data.dataset], data.train_images
    images, labels = source.embedded("train")
    if count > len(labels):
        images, labels = source.load("train", progress=progress)
        if count > len(labels):
            most = f"at most {len(labels):,}, all of {source.title}"
            raise ValueError(f"expected train_images, {most}, got {count:,}")
    images, labels = images[:count], labels[:count]
    if data.labels == "shuffled":
        labels = labels[torch.from_numpy(np.random.default_rng(SHUFFLE_SEED).permutation(len(labels)))]
    if data.planted:  # in blocks: all at once would take gigabytes
        blocks = zip(images.split(1000), labels.split(1000), strict=True)
        images = torch.cat([planted(*block, data.planted).half() for block in blocks])
    return images, labels


def held_out_set(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """The test images that the recipe is measured on, (N, C, H, W) float32, with its planted signal; labels, int64."""
    data = recipe.data
    count = max(2, recipe.eval_images, recipe.final_images)  # two show whether a network takes such images
    images, labels = (part[:count] for part in DATA_SETS[data.dataset].embedded("test"))
    return (planted(images, labels, data.planted) if data.planted else to_float(images)), labels
