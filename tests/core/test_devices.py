"""hfclib.devices: which device is taken, when bfloat16 is used, and what a device is called."""

import pytest
import torch
from torch import nn

from hfclib.devices import arithmetic, autocast, best_device, device_name, device_of, gains_from_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, False, "cuda"), (True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_best_device(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    assert best_device() == torch.device(expected)


@pytest.mark.parametrize(("gains", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_autocast_follows_the_hardware(monkeypatch, gains, dtype):
    monkeypatch.setattr("hfclib.devices.gains_from_bf16", lambda device: gains)
    convolution, images = nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8)
    with autocast(CPU):
        assert convolution(images).dtype == dtype
    assert convolution(images).dtype == torch.float32


def test_answers_are_in_full_float32_unless_fast(monkeypatch):
    monkeypatch.setattr("hfclib.devices.gains_from_bf16", lambda device: True)
    convolution, images = nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8)
    for amp, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        with arithmetic(CPU, amp=amp):
            assert convolution(images).dtype == dtype
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    assert before[0]
    with arithmetic(torch.device("cuda"), amp=False):  # settings only: it asks for no such device
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == (False, before[1])
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == before


@pytest.mark.parametrize(
    ("instructions", "gains"),
    [({}, False), ({"_is_avx512_bf16_supported"}, True), ({"_is_amx_tile_supported"}, True)],
)
def test_bfloat16_needs_its_instructions(monkeypatch, instructions, gains):
    """An AVX-512 processor without them emulates bfloat16, at less than the speed of float32."""
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: True)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(f"torch.cpu.{name}", lambda name=name: name in instructions)
    assert gains_from_bf16(CPU) is gains
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(f"torch.cpu.{name}")
    assert gains_from_bf16(CPU) is False


def test_mps_is_left_in_float32():
    assert gains_from_bf16(torch.device("mps")) is False


def test_device_of_a_model():
    assert device_of(nn.Flatten()) == CPU
    assert device_of(nn.Linear(2, 2, device="meta")) == torch.device("meta")
    only_buffers = nn.Module()
    only_buffers.register_buffer("mean", torch.zeros(3, device="meta"))
    assert device_of(only_buffers) == torch.device("meta")


def test_device_name(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    assert device_name(CPU) == "cpu, 3 thread(s)"
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Card")
    assert device_name(torch.device("cuda")) == "cuda, Card"
    assert device_name(torch.device("mps")) == "mps"
