"""hfclib: how much of the high-frequency component of images does a convolutional network use?"""

import importlib

# The public names and their modules, which are imported at first use: `import hfclib` alone does not import PyTorch.
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
