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
    data = DATA_SETS[recipe.data]
    images, labels = data.embedded("train")
    if recipe.train_images > len(labels):
        images, labels = data.load("train", progress=progress)
        if recipe.train_images > len(labels):
            most = f"at most {len(labels):,}, all of {data.title}"
            raise ValueError(f"expected train_images, {most}, got {recipe.train_images:,}")
    images, labels = images[: recipe.train_images], labels[: recipe.train_images]
    if recipe.labels == "shuffled":
        labels = labels[torch.from_numpy(np.random.default_rng(SHUFFLE_SEED).permutation(len(labels)))]
    if recipe.planted:  # in blocks: all at once would take gigabytes
        blocks = zip(images.split(1000), labels.split(1000), strict=True)
        images = torch.cat([planted(*block, recipe.planted).half() for block in blocks])
    return images, labels


def held_out_set(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """All test images of the recipe's data set, (N, C, H, W) float32, with its planted signal, and labels, int64."""
    images, labels = DATA_SETS[recipe.data].embedded("test")
    return (planted(images, labels, recipe.planted) if recipe.planted else to_float(images)), labels
