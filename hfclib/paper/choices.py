"""The recipes of the experiments on batch size, optimiser and architecture (the paper's Fig. 4, section 5.1)."""

from dataclasses import replace

from hfclib.paper.presets import Preset, base_recipe, fig4_recipes
from hfclib.training.recipe import Recipe


def choices_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """Vanilla of Fig. 4 and one change of it each: of the batch size, the optimiser or the architecture.

    - batch32, batch64, batch256, batch512: images a batch, at as many epochs, and so at fewer steps the larger they
      are; a size that is vanilla's own is left out. steps512 has 512 images a batch and as many steps as vanilla.
    - sgd (without momentum), adagrad, adadelta, rmsprop. Learning rates 1e-2, 1e-2, 1e-1, 1e-3, which the preset's
      schedule takes as it takes Adam's: the peak of "one_cycle", or the constant rate.
    - lenet, alexnet, vgg (`models`). VGG-11 starts with as many channels as the preset's ResNet, at "laptop" with 32:
      2.3 M parameters, at which an image costs as much time as with the ResNet-18 of width 16.

    Source: paper, section 5.1 and Fig. 4, which publish neither sizes of batches nor settings; learning rates of SGD
    and AdaDelta from comments in the authors' code, the others ours. No network has BatchNorm, as vanilla has none.
    """
    base, vanilla = base_recipe(preset), fig4_recipes(preset)["vanilla"]
    changes = {f"batch{size}": {"batch_size": size} for size in (32, 64, 256, 512) if size != vanilla.batch_size}
    changes["steps512"] = {"batch_size": 512, "epochs": round(vanilla.epochs * 512 / vanilla.batch_size)}
    changes |= {
        "sgd": {"optimizer": "sgd_plain", "learning_rate": 1e-2},
        "adagrad": {"optimizer": "adagrad", "learning_rate": 1e-2},
        "adadelta": {"optimizer": "adadelta", "learning_rate": 1e-1},
        "rmsprop": {"optimizer": "rmsprop", "learning_rate": 1e-3},
        "lenet": {"arch": "lenet"},
        "alexnet": {"arch": "alexnet"},
        "vgg": {"arch": "vgg11", "width": 32 if preset == "laptop" else vanilla.width},
    }
    variants = {
        variant: replace(vanilla, name=f"{base.name}-{variant}", **change) for variant, change in changes.items()
    }
    return {"vanilla": vanilla, **variants}
