"""Runs beside the published ones: copies of these under other seeds or with other numbers, and runs never trained."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from hfclib._files import data_folder, sha256
from hfclib.runs.store import WEIGHTS, Run, description

RUNS = data_folder() / "runs"


def write_run(
    store: Path,
    run: Run,
    seed: int,
    changed: Callable[[pd.DataFrame], pd.DataFrame],
    weights: Path | None = None,
) -> Path:
    """Store a copy of a published run.

    Args:
        store, seed: where, and as the run of which seed.
        run: the published one.
        changed: from its tables to those of the copy.
        weights: the file of the copy's weights; None is the run's own, or none where it has none.
    """
    path, source = store / run.recipe.run_name(seed), weights or run.path / WEIGHTS
    path.mkdir(parents=True)
    known = json.loads((run.path / "run.json").read_bytes())
    checksums = dict(known["sha256"])
    for name, table in (("curves.csv", run.curves), ("final.csv", run.final)):
        content = changed(table).to_csv(index=False).encode()
        (path / name).write_bytes(content)
        checksums[name] = sha256(content)
    if source.exists():
        checksums[WEIGHTS] = sha256(source.read_bytes())
        (path / WEIGHTS).symlink_to(source)
    content = json.loads(description(run.recipe, seed, known["provenance"], checksums))
    content |= {"weights_dropped": True} if not source.exists() else {}
    (path / "run.json").write_text(json.dumps(content))
    return path


def shelve(store: Path, run: Run, weights: bytes = b"no weights") -> Path:
    """Store the tables of a run that was never trained, with its seed and recipe, and what its weights are to be."""
    path = store / run.recipe.run_name(run.seed)
    path.mkdir(parents=True)
    contents = {WEIGHTS: weights}
    contents |= {
        name: table.to_csv(index=False).encode()
        for name, table in (("curves.csv", run.curves), ("final.csv", run.final))
    }
    checksums = {name: sha256(content) for name, content in contents.items()}
    contents["run.json"] = description(run.recipe, run.seed, run.provenance, checksums)
    for name, content in contents.items():
        (path / name).write_bytes(content)
    return path


def copy_records(home: Path, run: Run, path: Path) -> None:
    """Store what is published beside a run (predictions, attacks, tables) as that of its copy in the folder `path`."""
    for kind in ("predictions", "float32", "attacks", "batchnorm", "networks"):
        for file in (data_folder() / kind).glob(f"{run.path.name}.*"):
            (home / kind).mkdir(exist_ok=True)
            shutil.copy(file, home / kind / f"{path.name}{file.suffix}")
