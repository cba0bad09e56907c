"""Where a stored result comes from: the code, the machine and the versions that made it, as plain values for JSON.

Runs, detectors and measured tables store it in formats of their own, which hold what `made_by` says.
"""

import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

import hfclib
from hfclib.devices import device_name, gains_from_bf16


class Trained(Protocol):
    """What a training that has ended says of itself, as `Progress` does."""

    commits: list[str]
    train_seconds: float
    eval_seconds: float


def code_commit(package: Path = Path(__file__).parents[1]) -> str:
    """The git commit of the code that runs, with "-dirty" if hfclib was edited; "none" outside a checkout."""
    # The first command fails where the package is in another project's checkout, as in a virtual environment there.
    commands = ("ls-files --error-unmatch __init__.py", "rev-parse HEAD", "status --porcelain -- .")
    options: dict = {"cwd": package, "capture_output": True, "text": True, "check": True}
    try:
        _, head, changes = (subprocess.run(["git", *words.split()], **options).stdout.strip() for words in commands)
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return head + ("-dirty" if changes else "")


def made_by(device: torch.device, *packages: str) -> dict[str, Any]:
    """What makes a result here and now: commit, device, precision, and versions, those of `packages` included."""
    versions = {"hfclib": hfclib.__version__, "torch": torch.__version__, "python": platform.python_version()}
    return {
        "commit": code_commit(),
        "device": device_name(device),
        "precision": "bfloat16 autocast" if gains_from_bf16(device) else "float32",
        "versions": versions | {package: version(package) for package in packages},
    }


def training_provenance(state: Trained, device: torch.device, *packages: str) -> dict[str, Any]:
    """The provenance of a training that ends now, of all its commits; arguments as in `made_by`."""
    maker = made_by(device, *packages)
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commits": state.commits,
        "train_seconds": round(state.train_seconds),
        "eval_seconds": round(state.eval_seconds),
        **{name: maker[name] for name in ("device", "precision", "versions")},
    }


def run_json(identity: Mapping, provenance: Mapping, checksums: Mapping[str, str]) -> bytes:
    """The content of a `run.json`: what says which run it is, its provenance, and the SHA-256 of its other files."""
    return (json.dumps({**identity, "provenance": provenance, "sha256": checksums}, indent=2) + "\n").encode()
