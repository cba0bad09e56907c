"""Does what the paper finds on CIFAR-10 hold for other data, and does the LFC accuracy give a planted signal away?

The paper's networks on two more data sets; and networks on CIFAR-10 whose training and test images carry a pattern per
class that is too faint to see and has no low frequency.
"""

from dataclasses import replace

from hfclib.paper.fig1 import fig1_recipes
from hfclib.paper.presets import Preset, base_recipe, fig4_recipes
from hfclib.training.recipe import Recipe

SETS = {"mnist": "mnist", "fashion": "fashion-mnist"}  # `Recipe.data` by the first word of a variant
_BANDS = ("lfc4max", "lfc8max", "hfc4max", "hfc8max")
AMPLITUDE = 2 / 255


def datasets_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks of Fig. 4 and Table 1 on other data, and networks with a planted signal beside those without.

    - mnist-vanilla, mnist-dropout, mnist-mixup, mnist-batchnorm, mnist-adversarial as in Fig. 4, and mnist-lfc4max,
      mnist-lfc8max, mnist-hfc4max, mnist-hfc8max as in Table 1, each band divided by its maximum; the same with
      fashion. No crop and no flip, which would make other digits; at "laptop" 4 epochs of 60,000 images.
    - planted-vanilla, planted-batchnorm: vanilla and batchnorm of Fig. 4 with a pattern per class (`planted`) of
      amplitude 2/255 in the training and test images. vanilla, batchnorm: the networks of Fig. 4 themselves.

    Source: paper, section 5.2, Fig. 5, and section 4.1, Table 1; the blog's remark that HFC may be specific to one data
    set. The planted signal is ours.
    """
    base = base_recipe(preset)
    changes = {"augment": False, "train_images": base.train_images if preset == "smoke" else 60_000}
    changes |= {"epochs": 4} if preset == "laptop" else {}
    by_code = {name: fig1_recipes(preset)[f"hfc{name[3]}max"] for name in _BANDS}
    bands = {name: replace(recipe, train_band=name[:3]) for name, recipe in by_code.items()}
    variants = {}
    for word, data in SETS.items():
        for name, recipe in (fig4_recipes(preset) | bands).items():
            variant = f"{word}-{name}"
            variants[variant] = replace(recipe, name=f"{base.name}-{variant}", data=data, **changes)
    for name in ("vanilla", "batchnorm"):
        plain = fig4_recipes(preset)[name]
        variants[f"planted-{name}"] = replace(plain, name=f"{base.name}-planted-{name}", planted=AMPLITUDE)
        variants[name] = plain
    return variants
