"""Tables measured of stored networks beside their runs.

Of each network a folder of `data` holds `<run>.csv`, the table, and `<run>.json`: the SHA-256 of the network's weights
and of the table, the EVALUATION_VERSION (of the first files none, which is 1), commit, device and version of PyTorch
that measured it, and how long that took.
"""

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from hfclib._files import data_folder, sha256, write
from hfclib.devices import best_device
from hfclib.paper.measurements import each_run
from hfclib.runs.predictions import EVALUATION_VERSION, same_version, weights_of
from hfclib.runs.provenance import made_by
from hfclib.runs.store import Run, RunError


def stored_table(kind: str, run: Run) -> pd.DataFrame | None:
    """The published table in `data/<kind>` that was measured of a run's own weights.

    Returns:
        None where there is none, or one of another EVALUATION_VERSION.
    Raises:
        RunError: the table is damaged.
    """
    path = data_folder() / kind / f"{run.path.name}.json"
    if not path.exists():
        return None
    origin = json.loads(path.read_text())
    if origin["weights"] != weights_of(run.path) or not same_version(origin.get("evaluation")):
        return None
    content = path.with_suffix(".csv").read_bytes()
    if sha256(content) != origin["sha256"]:
        raise RunError(f"{path.with_suffix('.csv')} is damaged: delete it and {path.name}, and measure again")
    return pd.read_csv(io.BytesIO(content))


def publish_tables(kind: str, runs: Mapping[str, Sequence[Run]], measure: Callable[[Run, str], pd.DataFrame]) -> None:
    """Measure every run that has no table in `data/<kind>` yet, and write it there; a stop loses one network's at most.

    Args:
        kind: the name of the folder.
        runs: by variant.
        measure: from a run and its variant to a table with a column "accuracy", which is rounded to six decimals.
    """
    folder = data_folder() / kind
    folder.mkdir(exist_ok=True)
    for variant, run in each_run(runs):
        if stored_table(kind, run) is None:
            start, path, weights = time.monotonic(), folder / f"{run.path.name}.csv", weights_of(run.path)
            content = measure(run, variant).round({"accuracy": 6}).to_csv(index=False).encode()
            maker = made_by(best_device())
            origin = {"weights": weights, "sha256": sha256(content), "commit": maker["commit"]}
            origin |= {"device": maker["device"], "torch": maker["versions"]["torch"], "evaluation": EVALUATION_VERSION}
            origin["seconds"] = round(time.monotonic() - start)
            write(path, content)
            write(path.with_suffix(".json"), (json.dumps(origin, indent=2) + "\n").encode())
            print(run.path.name, flush=True)
