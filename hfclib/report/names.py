"""Stored runs by name; without PyTorch, so that an unknown one is refused at once."""

import difflib
from pathlib import Path

from hfclib._files import data_folder, homes


def run_folder(name: str) -> Path:
    """The folder of the one stored run of a name, with or without its hash; a published one yields to one of yours.

    Raises:
        ValueError: no such run, or several; the message has the nearest names.
    """
    places = [place / "runs" for place in (data_folder(), *homes())]
    stored = {path.parent.name: path.parent for place in places for path in sorted(place.glob("*/run.json"))}
    matching = [run for run in stored if run == name or run.startswith(f"{name}-")]
    if len(matching) != 1:
        names = [run.rsplit("-", 1)[0] for run in stored]  # without the hash, or any seed would be as near
        near = ", ".join(matching or difflib.get_close_matches(name, names, 3)) or "none"
        raise ValueError(
            f"expected one stored run, torchvision:NAME, timm:NAME or module:build, got {name}; near: {near}"
        )
    return stored[matching[0]]
