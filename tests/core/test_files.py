"""hfclib._files: writes that are whole or did not happen, checksums and locks."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest
import torch

from hfclib._files import home, homes, load_tensors, locked, save_tensors, write


def test_the_home_is_the_users_data_folder_and_the_cache_folder_is_still_read(tmp_path, user_home, monkeypatch):
    data, cache = (Path(named("hfclib")) for named in (platformdirs.user_data_dir, platformdirs.user_cache_dir))
    assert user_home in data.parents
    assert user_home in cache.parents
    monkeypatch.delenv("HFCLIB_HOME")
    assert (home(), homes()) == (data, [data])
    cache.mkdir(parents=True)
    assert (home(), homes()) == (data, [data, cache])
    monkeypatch.setenv("HFCLIB_HOME", str(tmp_path / "mine"))
    assert (home(), homes()) == (tmp_path / "mine", [tmp_path / "mine"])


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


def test_tensors_come_back_and_no_change_of_their_file_goes_unnoticed(tmp_path):
    path = tmp_path / "tensors.safetensors"
    save_tensors(path, {"a": torch.arange(3), "b": torch.ones(2, 2)}, {"run": "x"})
    content = path.read_bytes()
    tensors, metadata = load_tensors(path)
    assert (tensors["a"].tolist(), tensors["b"].tolist(), metadata["run"]) == ([0, 1, 2], [[1, 1], [1, 1]], "x")
    flipped = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(len(content))]
    cut = [content[:length] for length in (0, 7, 8, 40, len(content) - 1)]
    for changed in (*flipped, *cut, content + b"\0", content.replace(b'"seal"', b'"sael"')):
        path.write_bytes(changed)
        with pytest.raises(ValueError):  # noqa: PT011
            load_tensors(path)


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

    def kill(line):
        said.append(line)
        os.kill(process.pid, signal.SIGKILL)

    with locked(path, say=kill) as waited:
        assert waited
        assert process.wait() == -signal.SIGKILL
    assert said == [f"another process is at {path.with_suffix('')}: waiting until it ends"]
    assert not path.exists()


def test_a_lock_left_by_a_killed_process_blocks_nobody(held):
    path, process = held
    process.kill()
    process.wait()
    assert path.exists()
    with locked(path, say=pytest.fail) as waited:
        assert not waited
