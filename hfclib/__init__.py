"""hfclib: how much of the high-frequency component of images does a convolutional network use?"""

import importlib

# The public names and their modules, which are imported at first use: `import hfclib` alone does not import PyTorch.
_NAMES = {
    "attacks": ["apgd", "fgsm", "pgd", "robust_accuracy", "robust_table", "square", "strongest"],
    "batching": ["logits"],
    "data": ["cifar10"],
    "frequency": ["BandPass", "HighPass", "LowPass", "nyquist", "split", "swap_amplitude"],
    "kernels": ["smooth_kernels"],
    "metrics": ["accuracy", "band_accuracy", "mean_colour", "misaligned"],
    "models": ["resnet18", "resnet32"],
    "moments": ["matched"],
    "reporting": ["BandAccuracy", "Classifier", "make_report", "plot"],
    "runs": ["find", "load"],
    "training": ["Recipe", "fit"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
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
