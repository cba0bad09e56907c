"""What is in the run store: every run, whole, under way or damaged."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from hfclib.runs import store
from hfclib.runs.store import RunError, load
from hfclib.training.checkpoint import CheckpointError, epochs_done


@dataclass(frozen=True)
class StoreEntry:
    """A run in the store.

    Attributes:
        path: its folder.
        name: of the recipe; the folder's where that can't be known.
        seed: None where it can't be known.
        state: "stored"; "training" (a process is at it) or "unfinished" (none is), with the epochs done; or "damaged".
        accuracy: on the test set, in [0, 1]; None unless stored.
        seconds: that training and the measurements after each epoch took; None unless stored.
        size: bytes of all its files.
        problem: what is wrong with a damaged one, and what to do.
    """

    path: Path
    name: str
    seed: int | None
    state: str
    accuracy: float | None = None
    seconds: float | None = None
    size: int = 0
    problem: str | None = None


def store_entries(folders: Sequence[Path] | None = None) -> Iterator[StoreEntry]:
    """Every run in folders of runs, verified; None looks in `folders()`."""
    for folder in folders or store.folders():
        for path in sorted(folder.glob("*")):
            if path.is_dir() and not path.name.startswith("incoming-") and not path.name.endswith(".old.partial"):
                yield _entry(path)


def _entry(path: Path) -> StoreEntry:
    size = sum(map(_size, path.iterdir()))
    name, seed = path.name.removesuffix(".partial"), None
    if parts := re.fullmatch(r"(.+)-(\d+)-[0-9a-f]{10}", name):
        name, seed = parts[1], int(parts[2])
    try:
        if path.suffix == ".partial":
            done = epochs_done(path / "checkpoint.safetensors")
            state = "training" if _busy(path.with_suffix(".lock")) else "unfinished"
            return StoreEntry(path, name, seed, f"{state}, {done} epoch{'s' * (done != 1)} done", size=size)
        run = load(path)
        took = run.provenance.get("train_seconds", 0) + run.provenance.get("eval_seconds", 0)
        return StoreEntry(path, run.recipe.name, run.seed, "stored", run.test_accuracy(), took, size)
    except (RunError, CheckpointError) as error:
        return StoreEntry(path, name, seed, "damaged", size=size, problem=str(error))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # replaced meanwhile
        return 0


def _busy(lock: Path) -> bool:
    if not lock.exists():
        return False
    try:
        with FileLock(lock, blocking=False):
            return False
    except Timeout:
        return True
