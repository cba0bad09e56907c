"""Models by name: whether there is one, told without PyTorch, so that an unknown name is refused at once."""

import difflib
import re
from importlib.util import find_spec
from pathlib import Path

from hfclib._files import data_folder, homes

PACKAGES = "torchvision", "timm"


def check_model(name: str, weights: str | None = None) -> None:
    """Raise a ValueError if there is no model of a name, as far as files tell; see `named_model`.

    Args:
        name: a stored run, "torchvision:NAME", "timm:NAME" or "package.module:build".
        weights: pretrained ones, of torchvision or timm, or a file.
    """
    kind, _, rest = name.partition(":")
    file = weights is not None and is_file(weights)
    if kind in PACKAGES:
        _check_name_in(kind, rest)
        return
    if weights and not (file and rest):
        raise ValueError(f"expected weights with torchvision:NAME or timm:NAME only, got {weights!r} with {name}")
    if not rest:
        run_folder(name)
    elif find_spec(kind.partition(".")[0]) is None:
        raise ValueError(f"expected package.module:build, a function that returns a model, got {name}: no such package")


def is_file(weights: str) -> bool:
    """Whether weights are a file, and not a name; ValueError for a path at which there is none."""
    path = Path(weights)
    if path.is_file():
        return True
    if len(path.parts) > 1 or path.suffix in (".pt", ".pth", ".bin", ".safetensors"):
        raise ValueError(f"expected a file of weights, got {weights}, which is not there")
    return False


def _check_name_in(package: str, name: str) -> None:
    known = package_models(package)
    if known and not re.search("[:/]", name) and name.partition(".")[0] not in known:  # timm takes hf-hub:... too
        near = ", ".join(difflib.get_close_matches(name, known, 3)) or "none"
        raise ValueError(f"expected a model of {package}, got {name!r}; near: {near}")


def package_models(package: str) -> list[str]:
    """The names of the models that an installed package, torchvision or timm, registers, read from its source files.

    Raises:
        ValueError: it is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"expected {package} to be installed: pip install {package}")
    names: set[str] = set()
    for path in sorted(Path(spec.origin).parent.glob("models/**/*.py")):
        text = path.read_text("utf-8")
        for registered in text.split("@register_model")[1:]:
            named = re.match(r'\(name="(\w+)"\)', registered) or re.search(r"^def (\w+)\(", registered, re.MULTILINE)
            names.update(named.groups() if named else ())
        for former in text.split("register_model_deprecations(__name__")[1:]:
            names.update(re.findall(r"^ *'(\w+)': ", former, re.MULTILINE))
    return sorted(names)


def run_folders() -> dict[str, Path]:
    """The folders of all stored runs by name, with their hash; those of yours after the published ones."""
    places = [place / "runs" for place in (data_folder(), *homes())]
    return {path.parent.name: path.parent for place in places for path in sorted(place.glob("*/run.json"))}


def run_folder(name: str) -> Path:
    """The folder of the one stored run of a name, with or without its hash; a published one yields to one of yours.

    Raises:
        ValueError: no such run, or several; the message has the nearest names.
    """
    stored = run_folders()
    matching = [run for run in stored if run == name or run.startswith(f"{name}-")]
    if len(matching) != 1:
        names = [run.rsplit("-", 1)[0] for run in stored]  # without the hash, or any seed would be as near
        near = ", ".join(matching or difflib.get_close_matches(name, names, 3)) or "none"
        lacking = "" if data_folder().is_dir() else "; published runs come with a checkout of the repository"
        expected = "expected one stored run, torchvision:NAME, timm:NAME or module:build"
        raise ValueError(f"{expected}, got {name}; near: {near}{lacking}")
    return stored[matching[0]]
