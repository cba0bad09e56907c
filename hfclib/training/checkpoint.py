"""Checkpoints of a training under way: one safetensors file, replaced whole after every epoch."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hfclib._files import load_tensors, save_tensors
from hfclib.training.loop import Progress


class CheckpointError(RuntimeError):
    """A checkpoint that can't be used."""


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, state: Progress
) -> None:
    """Replace the checkpoint at `path`; if that is interrupted, or the disk is full, the old one stays whole."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        tensors |= {f"optimizer/{name}/{key}": value for key, value in optimizer.state[parameter].items()}
    # Copies: no file holds tensors that share memory, as tied weights do.
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    schedule = {key: value for key, value in scheduler.state_dict().items() if isinstance(value, int | float | list)}
    metadata = {"run": path.parent.name, "progress": json.dumps(asdict(state)), "schedule": json.dumps(schedule)}
    save_tensors(path, tensors, metadata)


def epochs_done(path: Path) -> int:
    """How many epochs the training has done whose checkpoint is at `path`; 0 if there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        return json.loads(load_tensors(path)[1]["progress"])["epoch"] if path.exists() else 0
    except (OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error


def restore_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler) -> Progress:
    """Fill model, optimizer and scheduler from a checkpoint and return its Progress; a new one if there is none.

    A checkpoint that is damaged, or of another network or run, raises a CheckpointError.
    """
    if not path.exists():
        return Progress()
    try:
        tensors, metadata = load_tensors(path)
        if metadata["run"] != path.parent.name:
            raise ValueError(f"it belongs to {metadata['run']}")
        model.load_state_dict(_named(tensors, "model/"))
        groups, state = optimizer.state_dict()["param_groups"], {}
        for number, (name, parameter) in enumerate(model.named_parameters()):
            state[number] = _named(tensors, f"optimizer/{name}/")
            for key, value in state[number].items():
                if value.ndim:  # a fused optimizer needs parameter and moments in the same memory format
                    state[number][key] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        scheduler.load_state_dict(json.loads(metadata["schedule"]))
        for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        return Progress(**json.loads(metadata["progress"]))
    except (PermissionError, torch.OutOfMemoryError):  # the file may be sound: it is not called damaged
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"the checkpoint {path} is damaged ({error}): delete it to train from the start")
