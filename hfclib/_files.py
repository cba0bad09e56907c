"""Files that are whole or not there: atomic writing, checksums and locks."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from filelock import FileLock, Timeout

if TYPE_CHECKING:  # the command line looks for runs before it imports PyTorch
    from torch import Tensor


def home() -> Path:
    """The folder for downloaded data and runs of yours: `$HFCLIB_HOME`, else the user's data folder for hfclib."""
    return Path(os.environ.get("HFCLIB_HOME") or platformdirs.user_data_dir("hfclib")).expanduser()


def homes() -> list[Path]:
    """Where data and runs of yours are read: `home()`, then the user's cache folder for hfclib, if there is one.

    They were kept in that until runs were found to be purged there. `$HFCLIB_HOME` decides alone.
    """
    former = Path(platformdirs.user_cache_dir("hfclib"))
    return [home()] if os.environ.get("HFCLIB_HOME") or not former.is_dir() else [home(), former]


def data_folder() -> Path:
    """The folder `data` of the repository: embedded images and published runs. An installed package has none."""
    return Path(__file__).resolve().parents[1] / "data"


def make_writable(folder: Path) -> None:
    """Make a folder if it is missing, before work whose results are to be put there.

    Raises:
        OSError: it can't be made or written to; says what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "it can't be written to", str(folder))
    except OSError as error:
        what = f"{folder} can't be used as a folder ({error.strerror})"
        raise OSError(error.errno, f"{what}: choose another (of runs by --store or HFCLIB_HOME)") from error


_BLANK = "0" * 64  # in place of a checksum while it is computed


def write(path: Path, content: bytes) -> None:
    """Write a file atomically: after a stop at any moment, `path` has either its old content or the new one.

    Raises:
        OSError: the disk is full, or the folder cannot be written to; `path` has its old content.
    """
    temporary = path.with_name(path.name + ".writing")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        what = f"{error.strerror}: {path} could not be written ({len(content):,} bytes) and is what it was"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "Make room and run the same command again" if full else "Mend that and run the same command again"
        raise OSError(error.errno, f"{what}. {advice}") from error


def sha256(content: bytes) -> str:
    """The checksum of bytes, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose metadata hold a checksum of the whole file ("seal"); whole or not, as `write`."""
    from safetensors.torch import save  # here, as it imports PyTorch

    blank = save(dict(tensors), {**metadata, "seal": _BLANK})
    write(path, blank.replace(_BLANK.encode(), sha256(blank).encode(), 1))


def load_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """The tensors and the metadata in a file that `save_tensors` wrote.

    Raises:
        OSError: it is missing or can't be read.
        ValueError: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = path.read_bytes()
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file: {error}") from error
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__") or {}
    found = metadata.get("seal", "")
    if sha256(content.replace(found.encode(), _BLANK.encode(), 1)) != found:
        raise ValueError("it was changed after it was written")
    return tensors, metadata


@contextlib.contextmanager
def locked(path: Path, *, say: Callable[[str], None]) -> Iterator[bool]:
    """Hold a lock while the block runs; if another process holds it, wait. The system frees it if the process dies.

    Args:
        path: the lock file, removed afterwards; one that a dead process left does no harm.
        say: called with a line before waiting.
    Yields:
        Whether it was necessary to wait.
    """
    make_writable(path.parent)
    lock, waited = FileLock(path), False
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say(f"another process is at {path.with_suffix('')}: waiting until it ends")
        waited = True
        lock.acquire()
    try:
        yield waited
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # before the release: a process that opened it sees that it is gone, and opens a new one
        lock.release()
