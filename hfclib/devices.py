"""Finding the device and the arithmetic that suits it."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


def best_device() -> torch.device:
    """CUDA if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def gains_from_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is in the hardware of `device`, so that autocast makes it faster."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Not mkldnn's `_is_mkldnn_bf16_supported`, which is true of any AVX-512 processor: without these instructions
    # bfloat16 is emulated, and slower than float32. Both names are private; where PyTorch lacks them float32 is safe.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in names)


def autocast(device: torch.device) -> AbstractContextManager:
    """A context in which convolutions run in bfloat16 where `device` gains from it, and in float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=gains_from_bf16(device))


def arithmetic(device: torch.device, *, amp: bool) -> AbstractContextManager:
    """A context for a model's answers: `autocast` with `amp`, else float32 in full.

    PyTorch lets recent NVIDIA GPUs round the input of convolutions to 10 bits (TF32) unless told otherwise.
    """
    if amp:
        return autocast(device)
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    return cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        benchmark_limit=cudnn.benchmark_limit,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    )


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU if it has neither."""
    tensor = next(model.parameters(), None)
    if tensor is None:
        tensor = next(model.buffers(), torch.empty(0))
    return tensor.device


def device_name(device: torch.device) -> str:
    """What to call `device` in a run's provenance, such as "cpu, 2 thread(s)"."""
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    return f"cpu, {torch.get_num_threads()} thread(s)" if device.type == "cpu" else device.type
