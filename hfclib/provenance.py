"""Where a run comes from: the code, the device and the versions that made it."""

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

import hfclib
from hfclib.devices import device_name, gains_from_bf16
from hfclib.training import Progress


def commit() -> str:
    """The git commit of the code that runs, with "-dirty" if hfclib was edited; "none" outside a checkout."""
    folder = Path(hfclib.__file__).parent
    try:
        _, head, changes = (
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            # The first fails where the package lies in somebody else's checkout, as in a virtual environment there.
            for words in (
                ["ls-files", "--error-unmatch", "__init__.py"],
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--", "."],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return head + ("-dirty" if changes else "")


def of_training(state: Progress, device: torch.device, processes: int = 1) -> dict:
    """The provenance of a run that was trained just now, as plain values for JSON.

    Args:
        state: of the finished training.
        device: where this process trained.
        processes: how many trained it together.
    """
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commits": state.commits,
        "train_seconds": round(state.train_seconds),
        "eval_seconds": round(state.eval_seconds),
        "device": device_name(device) + (f", {processes} processes" if processes > 1 else ""),
        "precision": "bfloat16 autocast" if gains_from_bf16(device) else "float32",
        "versions": {"hfclib": hfclib.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
