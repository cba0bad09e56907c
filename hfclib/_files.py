"""Files that are whole or not there: writing that survives a stop, seals, locks, and reading that trusts nothing."""

import contextlib
import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout
from safetensors.torch import load as parsed
from torch import Tensor


def home() -> Path:
    """The folder for downloaded data: `$HFCLIB_HOME`, else the user's cache folder for hfclib."""
    return Path(os.environ.get("HFCLIB_HOME") or platformdirs.user_cache_dir("hfclib")).expanduser()


def data_folder() -> Path:
    """The folder of the embedded files: `_data` inside an installed package, else `data/` of the repository."""
    package = Path(__file__).resolve().parent
    return package / "_data" if (package / "_data").is_dir() else package.parent / "data"


NO_SEAL = "0" * 64  # what stands where a seal goes


def write(path: Path, content: bytes) -> None:
    """Write so that `path` is either what it was or whole, also when the machine stops.

    Raises:
        OSError: the disk is full, or the folder can't be written to; `path` is what it was.
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
        told = f"{error.strerror}: {path} could not be written ({len(content):,} bytes); what stood there is untouched"
        raise OSError(error.errno, f"{told}. Make room and run the same command again") from error


def sha256(content: bytes) -> str:
    """The checksum of bytes, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def seal(content: bytes) -> bytes:
    """Content that holds its own checksum, so that a change of any of its bytes is found.

    Args:
        content: with NO_SEAL in it, once, where the checksum goes.
    """
    if content.count(NO_SEAL.encode()) != 1:
        raise ValueError("expected content with NO_SEAL in it, once")
    return content.replace(NO_SEAL.encode(), sha256(content).encode())


def seal_holds(content: bytes, found: object) -> bool:
    """Whether content that `seal` made, and that says it has the seal `found`, is as it was made."""
    if not isinstance(found, str) or not re.fullmatch("[0-9a-f]{64}", found) or content.count(found.encode()) != 1:
        return False
    return sha256(content.replace(found.encode(), NO_SEAL.encode())) == found


def read_bytes(path: Path, most: int) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: it is missing or can't be read.
        ValueError: it is larger than `most` bytes; nothing of it was read then.
    """
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"it has {size:,} bytes, expected at most {most:,}")
    return path.read_bytes()


def parse_tensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file by name, and its metadata.

    The format holds numbers only and runs no code; its reader refuses a header that reaches past the end of the
    content, or that says anything else than the content has.

    Raises:
        SafetensorError, ValueError: it is no such file.
    """
    found = parsed(content)  # checks the header, which is only then read again for what it leaves out
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return found, header.get("__metadata__") or {}


def all_finite(found: Mapping[str, Tensor]) -> bool:
    """Whether tensors hold no NaN and no infinity."""
    return all(bool(tensor.isfinite().all()) for tensor in found.values())


@contextlib.contextmanager
def locked(path: Path, *, say: Callable[[str], None]) -> Iterator[bool]:
    """Keep other processes out while the block runs, after waiting for one that is at it.

    The system frees the lock of a process that dies.

    Args:
        path: the lock file; it is gone afterwards, except if the process dies, and then does no harm.
        say: is told who that is.
    Yields:
        Whether it was necessary to wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, waited = FileLock(path), False
    try:
        lock.acquire(blocking=False)
    except Timeout:
        holder = ""
        with contextlib.suppress(OSError):  # the holder may have gone in the meantime
            holder = path.read_text()
        busy = f"{path.stem} is being trained by another process{f' ({holder})' if holder else ''}"
        say(f"{busy}: waiting until it ends")
        waited = True
        lock.acquire()
    try:
        with contextlib.suppress(OSError):
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}")  # for a person who wonders
        yield waited
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held: whoever opened it before sees that it is gone, and opens a new one
        lock.release()
