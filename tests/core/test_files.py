"""hfclib.files: writes that are whole or did not happen, seals that no changed bit escapes, and locks."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save

from hfclib import _files
from hfclib._files import NO_SEAL, locked, parse_tensors, read_bytes, seal_holds, write


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    write(path, b"old")

    def stopping(*args):
        raise KeyboardInterrupt

    for name in ("replace", "fsync"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, name, stopping)
            with pytest.raises(KeyboardInterrupt):
                write(path, b"new and longer")
        assert path.read_bytes() == b"old"
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_names_the_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    write(path, b"old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: {re.escape(str(path))} could not be.*Make room"):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


SEALED = _files.seal(b'{"a": [1, 2], "seal": "' + NO_SEAL.encode() + b'"}\n')
SEAL = SEALED[-67:-3].decode()


def test_a_sealed_content_is_recognised():
    assert seal_holds(SEALED, SEAL)
    assert SEALED.count(b"0" * 64) == 0


@given(st.integers(0, 8 * len(SEALED) - 1))
def test_no_flipped_bit_escapes_a_seal(bit):
    changed = bytearray(SEALED)
    changed[bit // 8] ^= 1 << bit % 8
    assert not seal_holds(bytes(changed), SEAL)
    assert not seal_holds(bytes(changed), changed[-67:-3].decode(errors="replace"))


@pytest.mark.parametrize("seal", [None, "", 7, SEAL[:-1], "1", "0" * 64, SEAL.upper() + "!"])
def test_what_is_no_seal_does_not_hold(seal):
    assert not seal_holds(SEALED, seal)


def test_a_seal_needs_its_place():
    with pytest.raises(ValueError, match="NO_SEAL"):
        _files.seal(b"{}")


def test_a_file_larger_than_it_can_be_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "huge"
    with open(path, "wb") as file:
        file.truncate(2**40)  # sparse: takes no room
    with pytest.raises(ValueError, match="expected at most 1,000"):
        read_bytes(path, 1000)


def header(text: bytes, length: int | None = None) -> bytes:
    """A safetensors file of this header, which says that it has `length` bytes."""
    return (len(text) if length is None else length).to_bytes(8, "little") + text


TENSOR = b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[%s]}}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        header(b"{}", 2**63),
        header(b"{}", 2**40),
        header(b"{}", 10**8 - 1),
        header(b"{"),
        header(b"[" * 100_000),
        header(b'{"a":' * 50_000),
        header(TENSOR % (b"1000000000000", b"0,4000000000000")) + b"\0" * 4,
        header(TENSOR % (b"18446744073709551615,18446744073709551615", b"0,4")) + b"\0" * 4,
        header(TENSOR % (b"1", b"0,4")),
        header(TENSOR % (b"1", b"4,8")) + b"\0" * 8,
        header(TENSOR % (b"1", b"4,0")) + b"\0" * 4,
        header(TENSOR % (b"1", b"-4,0")) + b"\0" * 4,
        header(TENSOR % (b"1", b"0,4")) + b"\0" * 5,
        header(b'{"a":{"dtype":"PICKLE","shape":[1],"data_offsets":[0,4]}}') + b"\0" * 4,
        header(b'{"../../a":{"dtype":"F32","shape":["__import__"],"data_offsets":[0,4]}}') + b"\0" * 4,
    ],
)
def test_a_hostile_safetensors_header_is_refused(content):
    with pytest.raises((SafetensorError, ValueError)):
        parse_tensors(content)


def test_tensors_and_metadata_of_a_sound_file():
    tensors, metadata = parse_tensors(save({"a": torch.arange(3)}, {"run": "x"}))
    assert tensors["a"].tolist() == [0, 1, 2]
    assert metadata == {"run": "x"}
    assert parse_tensors(save({"a": torch.arange(3)}))[1] == {}


# ---- locks

HOLDING = """
import sys, time
from pathlib import Path
from hfclib import _files as files
with files.locked(Path(sys.argv[1]), say=print):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held(tmp_path):
    """A lock file and the process that holds it."""
    path = tmp_path / "tiny-0.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield path, process
        process.kill()


def test_a_lock_is_gone_afterwards(tmp_path):
    path = tmp_path / "new" / "a.lock"
    for _ in range(2):
        with locked(path, say=pytest.fail) as waited:
            assert not waited
            assert path.exists()
        assert list(path.parent.iterdir()) == []


def test_who_waits_says_so_and_gets_the_lock_of_a_killed_process(held):
    path, process = held
    said = []
    timer = threading.Timer(0.3, lambda: os.kill(process.pid, signal.SIGKILL))
    timer.start()
    with locked(path, say=said.append) as waited:
        assert waited
        assert process.wait() == -signal.SIGKILL
    assert re.fullmatch(rf"tiny-0 is being .*process {process.pid} on .*: waiting until it ends", said[0])
    assert not path.exists()


def test_a_lock_left_by_a_killed_process_blocks_nobody(held):
    path, process = held
    process.kill()
    process.wait()
    assert path.exists()
    with locked(path, say=pytest.fail) as waited:
        assert not waited
