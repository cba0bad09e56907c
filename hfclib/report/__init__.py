"""Reports on any network: how much of each frequency band it reads, on any data, in a folder with a page.

The package can be called: `hfclib.report(model, data)` is `hfclib.report.make.make_report(model, data)`.
"""

import importlib
import inspect
import sys
from types import ModuleType

_HOME = {"BandAccuracy": "metric", "Classifier": "metric", "Report": "stored", "compare": "stored", "plot": "page"}
__all__ = [*_HOME, "report"]


class _Package(ModuleType):
    @property
    def __signature__(self) -> inspect.Signature:
        try:
            return inspect.signature(_module("make").make_report)
        except ModuleNotFoundError as error:
            raise AttributeError(str(error)) from error

    def __call__(self, *args, **options):
        return _module("make").make_report(*args, **options)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: pip install 'hfclib[report]'", name=error.name) from error


# `import hfclib.report` binds the package to the name `hfclib.report`, so the package itself is the function.
report = sys.modules[__name__]
report.__class__ = _Package


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_module(_HOME[name]), name)
