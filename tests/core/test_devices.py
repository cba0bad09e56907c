"""hfclib.devices: which device is taken, when bfloat16 is used, and that float32 is not rounded."""

from types import SimpleNamespace

import pytest
import torch
from joblib import cpu_count
from torch import nn

from hfclib.devices import arithmetic, best_device, device_name, device_of, full_float32, gains_from_bf16, use_threads

CPU = torch.device("cpu")


def test_best_device(monkeypatch):
    for cuda, mps, expected in [
        (True, False, "cuda"),
        (True, True, "cuda"),
        (False, True, "mps"),
        (False, False, "cpu"),
    ]:
        monkeypatch.setattr("torch.cuda.is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr("torch.backends.mps.is_available", lambda mps=mps: mps)
        assert best_device() == torch.device(expected)


@pytest.fixture
def threads():
    """Restores the number of threads, which is 7 until something sets it."""
    before = torch.get_num_threads()
    torch.set_num_threads(7)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("busy", "environment", "asked", "expected"),
    [
        (0.2, "", None, cpu_count()),
        (cpu_count() - 1.1, "", None, 1),
        (cpu_count() - 0.4, "", None, 1),
        (30.0 + cpu_count(), "", None, 1),
        (5.9, "", 3, 3),
        (5.9, "1", None, 7),
        (0, "1", 3, 3),
    ],
)
def test_threads_are_those_asked_for_or_as_many_as_cores_are_idle(
    monkeypatch, threads, busy, environment, asked, expected
):
    monkeypatch.setenv("OMP_NUM_THREADS", environment)
    monkeypatch.setattr("os.getloadavg", lambda: (busy, 0.0, 0.0))
    use_threads(asked)
    assert torch.get_num_threads() == expected


@pytest.mark.parametrize("gains", [True, False])
def test_bfloat16_is_used_with_amp_where_the_device_gains_from_it(bf16_instructions, gains):
    bf16_instructions(avx512=gains)
    convolution, images = nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8)
    with arithmetic(CPU, amp=True):
        assert convolution(images).dtype == (torch.bfloat16 if gains else torch.float32)
    with arithmetic(CPU, amp=False):
        assert convolution(images).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):  # the caller's
        with arithmetic(CPU, amp=False):
            assert convolution(images).dtype == torch.float32
        assert convolution(images).dtype == torch.bfloat16


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="settings of PyTorch 2.9 and later"
)
def test_float32_is_not_rounded_on_gpus():
    """Settings only: they exist without a GPU, and without a warning (which is an error in the tests)."""
    owners = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [owner.fp32_precision for owner in owners]
    assert before[0] == "tf32"
    try:
        for products in ("none", "ieee", "tf32"):
            owners[1].fp32_precision = products
            with arithmetic(torch.device("cuda"), amp=False):
                assert [owner.fp32_precision for owner in owners] == ["ieee", {"tf32": "ieee"}.get(products, products)]
            with pytest.raises(ArithmeticError), arithmetic(torch.device("cuda"), amp=False):
                raise ArithmeticError
            assert [owner.fp32_precision for owner in owners] == ["tf32", products]
    finally:
        owners[1].fp32_precision = before[1]
    assert torch.backends.cudnn.allow_tf32  # the old settings can still be read


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="settings of PyTorch 2.9 and later"
)
@pytest.mark.parametrize("level", ["all", "cuda"])
def test_tf32_that_is_inherited_stays_so(level):
    """After the context, a change of the setting that the others inherit from still reaches them."""
    above = torch.backends if level == "all" else torch.backends.cudnn
    owners = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    everything = torch.backends, torch.backends.cudnn, *owners
    before = ["none", "none", "tf32", "none"]  # PyTorch's own
    assert [owner.fp32_precision for owner in everything] == before
    try:
        for owner in owners:
            owner.fp32_precision = "none"
        above.fp32_precision = "tf32"
        assert [owner.fp32_precision for owner in owners] == ["tf32"] * 2
        with arithmetic(torch.device("cuda"), amp=False):
            assert [owner.fp32_precision for owner in owners] == ["ieee"] * 2
        assert [owner.fp32_precision for owner in owners] == ["tf32"] * 2
        above.fp32_precision = "ieee"
        assert [owner.fp32_precision for owner in owners] == ["ieee"] * 2
    finally:
        for owner, precision in zip(everything, before, strict=True):
            owner.fp32_precision = precision


@pytest.mark.parametrize(("convolutions", "products"), [(True, False), (False, True)])
def test_float32_is_not_rounded_on_gpus_by_an_older_pytorch(convolutions, products):
    cudnn, matmul = SimpleNamespace(allow_tf32=convolutions), SimpleNamespace(allow_tf32=products)
    with full_float32(SimpleNamespace(cudnn=cudnn, cuda=SimpleNamespace(matmul=matmul))):
        assert (cudnn.allow_tf32, matmul.allow_tf32) == (False, False)
    assert (cudnn.allow_tf32, matmul.allow_tf32) == (convolutions, products)


def test_bfloat16_needs_its_instructions(monkeypatch, bf16_instructions):
    """An AVX-512 processor without them emulates bfloat16, at less than the speed of float32."""
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: True)
    for instructions in ({}, {"avx512": True}, {"amx": True}):
        bf16_instructions(**instructions)
        assert gains_from_bf16(CPU) is bool(instructions)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(f"torch.cpu.{name}")
    assert gains_from_bf16(CPU) is False
    assert gains_from_bf16(torch.device("mps")) is False


def test_device_of_a_model():
    assert device_of(nn.Flatten()) == CPU
    assert device_of(nn.Linear(2, 2, device="meta")) == torch.device("meta")
    only_buffers = nn.Module()
    only_buffers.register_buffer("mean", torch.zeros(3, device="meta"))
    assert device_of(only_buffers) == torch.device("meta")


def test_device_name(monkeypatch, threads):
    assert device_name(CPU) == "cpu, 7 thread(s)"
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Card")
    assert device_name(torch.device("cuda")) == "cuda, Card"
    assert device_name(torch.device("mps")) == "mps"
