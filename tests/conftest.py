"""What every test starts from: a home folder of its own, the same random numbers, and slow tests left for `-m slow`."""

import os
from contextlib import nullcontext

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from hfclib.conditions import PAPER_RADII
from hfclib.data import embedded
from hfclib.devices import gains_from_bf16
from hfclib.runs.predictions import Predictions, prediction_conditions
from hfclib.training.recipe import RADII, Recipe

# One thread, here and in every process that a test starts: on some CPUs oneDNN writes beyond its memory in the gradient
# of a 1 x 1 convolution of stride 2 with fewer than 16 channels, an odd number of images and two threads. The networks
# of the tests are that small; no preset has all three.
THREADS = torch.get_num_threads()
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # where there is a GPU, the tests are on the CPU too

settings.register_profile("hfclib", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("hfclib")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: recomputes or trains for long, run with -m slow")
    config.addinivalue_line("markers", "drawn: a test of `hfc report` that draws its page and card")


def pytest_collection_modifyitems(config, items):
    if not config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))


@pytest.fixture
def all_threads():
    """As many threads as PyTorch takes by itself: for networks of the published size, which are only asked."""
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _shared_home(tmp_path_factory):
    """What fixtures of a module or session make does not go to the user's home either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFCLIB_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    """No test reads or writes the user's home, and each starts from the same random numbers."""
    monkeypatch.setenv("HFCLIB_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    return tmp_path / "home"


@pytest.fixture
def user_home(monkeypatch, tmp_path):
    """A home folder of the user's own, with the folders for data and caches where the system has them."""
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    return tmp_path / "user"


class RoundedProducts(TorchFunctionMode):
    """bfloat16 where the processor has none, ten times as fast as PyTorch's emulation: products of rounded numbers.

    Those are exact in float32, in which bfloat16 instructions sum them, too.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in (torch.conv2d, nn.functional.linear) or not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        args, kwargs = tree_map(lambda one: one.bfloat16().float() if isinstance(one, Tensor) else one, (args, kwargs))
        with torch.autocast("cpu", enabled=False):
            return func(*args, **kwargs).bfloat16()


@pytest.fixture
def bf16_instructions(monkeypatch):
    """Sets which instructions for bfloat16 the processor seems to have."""

    def choose(*, avx512=False, amx=False):
        for name, has in (("_is_avx512_bf16_supported", avx512), ("_is_amx_tile_supported", amx)):
            monkeypatch.setattr(f"torch.cpu.{name}", lambda has=has: has, raising=False)

    return choose


@pytest.fixture
def in_bf16(bf16_instructions):
    """What asks for it is computed in bfloat16, as the published numbers were, on any processor."""
    emulated = nullcontext() if gains_from_bf16(torch.device("cpu")) else RoundedProducts()
    bf16_instructions(avx512=True)
    with emulated:
        yield


@pytest.fixture
def in_float32(bf16_instructions):
    """What asks for it is computed in full precision, also where the processor gains from bfloat16."""
    bf16_instructions()


@pytest.fixture
def measured_at(monkeypatch):
    """Sets the radii at which runs are measured: all 22 take most of the time of a small training."""

    def choose(*radii):
        monkeypatch.setattr(Recipe, "radii", radii)

    return choose


@pytest.fixture
def no_bands(measured_at):
    """Runs are measured on whole images only."""
    measured_at()


@pytest.fixture
def published_folder(monkeypatch, tmp_path):
    """The folder of what is published, empty: the test publishes its own. Embedded images stay where they are."""
    folder = tmp_path / "data"
    for module in ("paper.stored_tables", "reporting.names", "runs.predictions", "runs.store"):
        monkeypatch.setattr(f"hfclib.{module}.data_folder", lambda: folder)
    return folder


@pytest.fixture
def evaluation_version(monkeypatch):
    """Sets the EVALUATION_VERSION, which code that measures something else has raised."""

    def choose(version):
        for module in ("paper.stored_tables", "runs.predictions"):
            monkeypatch.setattr(f"hfclib.{module}.EVALUATION_VERSION", version)

    return choose


@pytest.fixture
def train_by(monkeypatch):
    """Puts a function in the place of `train_run` where runs are loaded or trained; each counts as one minute."""

    def install(train):
        monkeypatch.setattr("hfclib.runs.collect.train_run", train)
        monkeypatch.setattr("hfclib.runs.collect.estimate_seconds", lambda recipe, device: 60.0)

    return install


@pytest.fixture
def no_training(train_by):
    train_by(lambda *args, **options: pytest.fail("something was trained"))


class ChannelMeans(nn.Module):
    """The channel means as logits: a model whose every answer can be worked out by hand."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


@pytest.fixture
def channel_means():
    return ChannelMeans()


@pytest.fixture
def images():
    return torch.rand(12, 3, 8, 8)


@pytest.fixture
def labels(channel_means, images):
    """The classes that `channel_means` predicts for `images`."""
    return channel_means(images).argmax(dim=1)


@pytest.fixture(scope="session")
def cifar():
    """The embedded images and labels, decoded once."""
    return {split: embedded(split) for split in ("train", "test")}


@pytest.fixture
def true_classes(cifar):
    """The classes of the 60 images that `answers` are about, the first test images."""
    return cifar["test"][1][:60]


@pytest.fixture
def answers(true_classes):
    """Answers by variant, about half of them right, drawn at random; the wide network is asked less, as in the book."""

    def drawn(batch_norm, other_radii=RADII):
        guesses = {
            condition: torch.randint(0, 10, (60,))
            for condition in prediction_conditions(batch_norm, RADII, other_radii)
        }
        return Predictions(
            {
                condition: torch.where(torch.rand(60) < 0.5, true_classes, guess).to(torch.uint8)
                for condition, guess in guesses.items()
            },
            batch_norm,
        )

    return {"vanilla": drawn(False), "batchnorm": drawn(True), "fullwidth": drawn(True, PAPER_RADII)}


@pytest.fixture(scope="session")
def other_libraries():
    """`benchmarks.attacks`, in which Foolbox and torchattacks run the attack that hfclib runs."""
    try:
        from benchmarks import attacks
    except ImportError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error}; `make test` installs torchattacks: pip install --no-deps 'torchattacks>=3.5,<4'")
    return attacks
