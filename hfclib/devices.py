"""The device to compute on, and its arithmetic: bfloat16 where the hardware has it, or float32 in full precision."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from joblib import cpu_count
from torch import nn


def best_device() -> torch.device:
    """CUDA if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def idle_cores() -> int:
    """The number of cores that nothing else has used in the last minute, by the load of the machine; at least 1."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, cpu_count() - round(load))


def use_threads(threads: int | None = None) -> None:
    """Compute with so many CPU threads. None: those of OMP_NUM_THREADS, or else as many as cores are idle.

    More threads than idle cores wait for one another: a minute of work then takes several.
    """
    if threads or not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(threads or idle_cores())


def gains_from_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is in the hardware of `device`, so that autocast makes it faster."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Not mkldnn's `_is_mkldnn_bf16_supported`, which is true for any AVX-512 processor: without these instructions
    # bfloat16 is emulated, and slower than float32. Both names are private; without them float32 is used.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in names)


@contextmanager
def full_float32(backends: Any = torch.backends) -> Iterator[None]:
    """A context in which NVIDIA GPUs do not round the input of float32 convolutions and products to 10 bits (TF32)."""
    cudnn, products = backends.cudnn, backends.cuda.matmul
    name: str
    rounded: str | bool
    full: str | bool
    owners: tuple
    if hasattr(products, "fp32_precision"):  # from PyTorch 2.9 on
        # From the setting that the others inherit from down: what was only inherited is gone by then, and is not set.
        name, rounded, full, owners = "fp32_precision", "tf32", "ieee", (backends, cudnn, cudnn.conv, products)
    else:
        name, rounded, full, owners = "allow_tf32", True, False, (cudnn, products)
    changed = []
    try:
        for owner in owners:  # only what rounds: PyTorch refuses to read old settings that contradict the new ones
            if getattr(owner, name) == rounded:
                setattr(owner, name, full)
                changed.append(owner)
        yield
    finally:
        for owner in changed:
            setattr(owner, name, rounded)


@contextmanager
def arithmetic(device: torch.device, *, amp: bool) -> Iterator[None]:
    """A context for a forward pass: with `amp` in bfloat16 where `device` gains from it, else in full float32.

    An autocast around it, as in a loop of your own, makes no difference.
    """
    full = full_float32() if device.type == "cuda" and not amp else nullcontext()
    changes = amp or torch.is_autocast_enabled(device.type)
    bf16 = amp and gains_from_bf16(device)
    with full, torch.autocast(device.type, torch.bfloat16, enabled=bf16) if changes else nullcontext():
        yield


def check_module(model: nn.Module) -> None:
    """Raise a TypeError if the model is no module, such as a plain function."""
    if not hasattr(model, "modules"):
        advice = "hfclib.Classifier(model) makes one of any callable"
        raise TypeError(f"expected a model that is a torch.nn.Module, got {type(model).__name__}: {advice}")


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU if it has neither. TypeError if it is no module."""
    check_module(model)
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), torch.device("cpu"))


def device_name(device: torch.device) -> str:
    """The name of `device` in the provenance of a run, such as "cpu, 2 thread(s)"."""
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    return f"cpu, {torch.get_num_threads()} thread(s)" if device.type == "cpu" else device.type
