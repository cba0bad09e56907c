"""Reports on any network: how much of each frequency band it reads, on any data, in a folder with a page."""

import importlib

_HOME = {
    "BandAccuracy": "metric",
    "Classifier": "metric",
    "DatasetSpec": "datasets",
    "Report": "stored",
    "ReportSettings": "settings",
    "compare": "stored",
    "make_report": "make",
    "plot": "figures",
    "read_report": "stored",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_HOME[name]}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: pip install 'hfclib[report]'", name=error.name) from error
    return getattr(module, name)
