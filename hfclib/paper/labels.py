"""The recipes of the experiments on natural and shuffled labels (the paper's Fig. 3)."""

from dataclasses import replace

from hfclib.paper.presets import Preset, base_recipe
from hfclib.training.recipe import Recipe


def labels_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """Networks trained on natural and on shuffled labels, with BatchNorm and without: natural, shuffled, natural_plain,
    shuffled_plain. The bands of their training images are measured too.

    "laptop" trains on the 5,000 embedded images without augmentation, where a network with BatchNorm learns shuffled
    labels in fourteen epochs. Without it natural labels are learnt from the first epoch on, but on shuffled ones the
    loss stays at ln 10: in trials with seed 0 for all of 1,500 steps, and with a learning rate that rose over the first
    500 for 3,600 (46 epochs), after which it began to fall. The rise shortened nothing, and there is none here; the
    paper's network took about twenty epochs of 50,000 images to begin. Shuffled labels therefore have three times the
    epochs, as in the paper; whether 120 are enough was not tried. Other presets keep their own images and schedule.

    Source: paper, section 4.2 and Fig. 3.
    """
    base = replace(base_recipe(preset), train_bands=True, augment=False)
    by_norm = {"": {"norm": "batch"}, "_plain": {}}
    longer = {"": 1, "_plain": 1} if preset == "smoke" else {"": 3, "_plain": 3}
    if preset == "laptop":
        base = replace(base, schedule="constant", epochs=20, batch_size=64, train_images=5_000, eval_images=500)
        by_norm["_plain"] = {"epochs": 40}
        longer[""] = 1
    chosen = {}
    for suffix, change in by_norm.items():
        natural = replace(base, name=f"{base.name}-natural{suffix}", **change)
        epochs = longer[suffix] * natural.epochs
        shuffled = replace(natural, name=f"{base.name}-shuffled{suffix}", labels="shuffled", epochs=epochs)
        chosen |= {f"natural{suffix}": natural, f"shuffled{suffix}": shuffled}
    return chosen
