"""Tensors kept beside a run, so that what its network was asked once costs nothing again.

A file `<kind>/<run>.safetensors` is sealed and names the weights it was made with: what another training of the same
run left is not used. Published ones lie in `data`, your own in `<home>`. Kinds: "predictions" (`predictions`) and
"attacks" (`trials`).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from hfclib import files
from hfclib.data import data_folder, home
from hfclib.verification import RunError

if TYPE_CHECKING:
    from hfclib.runs import Run

_MOST = 2**26  # bytes of a file; the published ones have one to three million


def weights_of(folder: Path) -> str:
    """SHA-256 of the `weights.safetensors` in the folder of a run."""
    return files.sha256((folder / "weights.safetensors").read_bytes())


def load(kind: str, run: "Run") -> dict[str, Tensor]:
    """What is stored of a run's own weights; published tensors come before your own, as published runs do.

    Raises:
        RunError: a file is damaged; says which, and what to do.
    """
    found: dict[str, Tensor] = {}
    paths = [folder / kind / f"{run.path.name}.safetensors" for folder in (home(), data_folder())]
    for path in filter(Path.exists, paths):
        found |= read(path, weights_of(run.path))
    return found


def read(path: Path, weights: str) -> dict[str, Tensor]:
    """The tensors of a file by name; none where there is no file, or one made with weights other than `weights_of`.

    Raises:
        RunError: as `load`.
    """
    if not path.exists():
        return {}
    try:
        content = files.read(path, _MOST)
        tensors, metadata = files.tensors(content)
        if not files.seal_holds(content, metadata.get("seal")):
            raise ValueError("it was changed after it was written")
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}): delete it, and it will be made again") from error
    return tensors if metadata.get("weights") == weights else {}


def kept(path: Path, weights: str) -> dict[str, Tensor]:
    """As `read`, but none of a damaged file: for what can be made again, where it is about to be written."""
    try:
        return read(path, weights)
    except RunError:
        return {}


def store(kind: str, name: str, tensors: dict[str, Tensor], weights: str) -> None:
    """Keep tensors in `<home>`, beside those that are kept there already of the same weights.

    Those of another training of the same run, and a damaged file, make way. Processes take turns.

    Args:
        kind: "predictions" or "attacks".
        name: the run's folder's.
        tensors: by name, contiguous.
        weights: as `weights_of`.
    """
    path = home() / kind / f"{name}.safetensors"
    with files.locked(path.with_suffix(".lock"), wait=True, say=lambda busy: None):  # for moments only
        save_to(path, kept(path, weights) | tensors, weights)


def save_to(path: Path, tensors: dict[str, Tensor], weights: str) -> None:
    """Write a file that `read` reads; arguments as in `store`."""
    ordered = dict(sorted(tensors.items()))
    files.write(path, files.seal(save(ordered, {"weights": weights, "seal": files.NO_SEAL})))
