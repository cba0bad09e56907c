"""Folders of images by class: which class each folder is; without PyTorch, so that a bad one is refused at once."""

import csv
import json
from pathlib import Path

_SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")


def class_folders(root: str | Path, class_map: str | Path | None = None) -> dict[str, int]:
    """The folders in `root` and the class index of each, in the order of the indices.

    Args:
        root: has one folder of images per class. Hidden folders are left out. Without a map the classes are counted in
            alphabetical order, or by number if all names are whole numbers.
        class_map: a JSON object from folder to class index, or a CSV file with both in each line.
    Raises:
        ValueError: no folder, folders that are the parts of a data set (train, val), names that are the same number, or
            a map that can't be read or lacks a folder.
        OSError: one of them is not there.
    """
    names = sorted(path.name for path in Path(root).iterdir() if path.is_dir() and path.name[0] != ".")
    if not names:
        raise ValueError(f"expected one folder of images per class in {root}, got none")
    if class_map is not None:
        known = _read_map(Path(class_map))
        if lacking := [name for name in names if name not in known]:
            raise ValueError(
                f"expected each of the {len(names)} folders in {class_map}, it lacks {', '.join(lacking[:3])}"
            )
        return dict(sorted(((name, known[name]) for name in names), key=lambda pair: pair[1]))
    splits = [
        name for name in names if name.lower() in _SPLITS and any(map(Path.is_dir, (Path(root) / name).iterdir()))
    ]
    if len(splits) > 1 or splits == names:
        advice = f"pass one of them, such as {Path(root) / splits[-1]}"
        raise ValueError(
            f"expected one folder per class in {root}, got parts of a data set, {', '.join(splits)}: {advice}"
        )
    if all(name.isascii() and name.isdigit() for name in names):
        names = sorted(names, key=int)
        if len(set(map(int, names))) < len(names):
            raise ValueError(f"expected folders of different numbers in {root}, got {', '.join(names)}")
    return {name: place for place, name in enumerate(names)}


def _read_map(path: Path) -> dict[str, int]:
    """A class map; see `class_folders`."""
    text = path.read_text("utf-8-sig")
    try:
        if path.suffix.lower() == ".json":
            pairs = json.loads(text, object_pairs_hook=list)
        else:
            rows = [row for row in csv.reader(text.splitlines()) if row]
            rows = rows[1:] if not rows[0][1].strip().isdigit() else rows  # a header
            pairs = [(folder.strip(), int(index)) for folder, index in rows]
        known = dict(pairs)
        if len(known) < len(pairs):
            raise ValueError("a folder stands there twice")
        if not known or not all(type(index) is int and index >= 0 for index in known.values()):
            raise ValueError("no whole numbers of at least 0")
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(f"expected a class map, JSON or CSV from folder to class index, in {path}: {error}") from error
    return known
