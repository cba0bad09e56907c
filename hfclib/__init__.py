"""hfclib: how much of an image's high-frequency component does a convolutional network read?"""

import importlib

# Imported when first used: `import hfclib` alone takes a fraction of a second.
_HOME = {
    "HighPass": "frequency",
    "LowPass": "frequency",
    "Recipe": "training",
    "accuracy": "evaluation",
    "band_accuracy": "evaluation",
    "cifar10": "data",
    "fgsm": "attacks",
    "find": "runs",
    "fit": "training",
    "load": "runs",
    "logits": "evaluation",
    "misaligned": "evaluation",
    "pgd": "attacks",
    "resnet18": "models",
    "resnet32": "models",
    "robust_accuracy": "attacks",
    "smooth_kernels": "kernels",
    "split": "frequency",
    "square": "attacks",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("hfclib")
    if name not in _HOME:
        raise AttributeError(f"module 'hfclib' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hfclib.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
