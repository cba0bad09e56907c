"""Stored runs: found and checked, trained where they are missing, one by one or many at a time."""

from hfclib.runs.collect import Runs, obtain, published_runs, stored_runs
from hfclib.runs.predictions import Predictions, predictions_of
from hfclib.runs.store import Run, RunError, find, load
from hfclib.runs.train import train_run

__all__ = ["Predictions", "Run", "RunError", "Runs", "find", "load", "obtain"]
__all__ += ["predictions_of", "published_runs", "stored_runs", "train_run"]
