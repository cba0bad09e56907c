"""Checkpoints of a training under way: one safetensors file, replaced whole after every epoch."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hfclib.training import Progress

# What each optimizer keeps of a parameter.
_MOMENTS: dict[type[Optimizer], tuple[str, ...]] = {Adam: ("step", "exp_avg", "exp_avg_sq"), SGD: ("momentum_buffer",)}


class CheckpointError(RuntimeError):
    """A checkpoint that can't be used."""


def write(path: Path, content: bytes) -> None:
    """Write so that `path` is either what it was or whole, also when the machine stops."""
    temporary = path.with_name(path.name + ".writing")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save(path: Path, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, state: Progress) -> None:
    """Replace the checkpoint at `path`; interrupted at any moment, the old one stays whole."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        tensors |= {f"optimizer/{name}/{key}": value for key, value in optimizer.state[parameter].items()}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    schedule = {key: value for key, value in scheduler.state_dict().items() if isinstance(value, int | float | list)}
    temporary = path.with_name(path.name + ".writing")
    save_file(tensors, temporary, {"progress": json.dumps(asdict(state)), "schedule": json.dumps(schedule)})
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def restore(path: Path, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler) -> Progress:
    """Fill model, optimizer and scheduler from the checkpoint at `path` and return its Progress; a new one if none.

    Raises:
        CheckpointError: the file is damaged or belongs to another network.
    """
    if not path.exists():
        return Progress()
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        model.load_state_dict({n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")})
        for name, parameter in model.named_parameters():
            for key in _MOMENTS[type(optimizer)]:
                value = tensors[f"optimizer/{name}/{key}"].to(parameter.device)
                # The fused optimizer walks parameter and moments together: they must lie in memory alike.
                like = torch.empty_like(parameter, requires_grad=False) if value.ndim else torch.empty_like(value)
                optimizer.state[parameter][key] = like.copy_(value)
        scheduler.load_state_dict(json.loads(metadata["schedule"]))
        for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        return Progress(**json.loads(metadata["progress"]))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        advice = "delete it to train from the start"
        raise CheckpointError(f"the checkpoint {path} is damaged ({error}): {advice}") from error
