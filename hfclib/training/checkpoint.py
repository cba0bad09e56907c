"""Checkpoints of a training under way: one sealed safetensors file, replaced whole after every epoch."""

import json
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LRScheduler

from hfclib._files import NO_SEAL, all_finite, parse_tensors, read_bytes, seal, seal_holds, write
from hfclib.training.loop import Progress

# What each optimizer keeps of a parameter, with the settings that recipes use.
_MOMENTS: dict[type[Optimizer], tuple[str, ...]] = {
    Adam: ("step", "exp_avg", "exp_avg_sq"),
    AdamW: ("step", "exp_avg", "exp_avg_sq"),
    SGD: ("momentum_buffer",),
    Adagrad: ("step", "sum"),
    Adadelta: ("step", "square_avg", "acc_delta"),
    RMSprop: ("step", "square_avg"),
}
_LARGEST_CHECKPOINT = 2**32  # bytes, where the network isn't known


class CheckpointError(RuntimeError):
    """A checkpoint that can't be used."""


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, state: Progress
) -> None:
    """Replace the checkpoint at `path`; interrupted at any moment, or out of room, the old one stays whole.

    Raises:
        OSError: as `write`.
    """
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        tensors |= {f"optimizer/{name}/{key}": value for key, value in optimizer.state[parameter].items()}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    schedule = {key: value for key, value in scheduler.state_dict().items() if isinstance(value, int | float | list)}
    metadata = {"run": path.parent.name, "progress": json.dumps(asdict(state)), "schedule": json.dumps(schedule)}
    content = seal(safetensors.torch.save(tensors, {**metadata, "seal": NO_SEAL}))
    write(path, content)


def opened(path: Path, content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata in the content of the checkpoint at `path`.

    Raises:
        CheckpointError: it is damaged, or of another training than the one in whose folder it lies.
    """
    try:
        tensors, metadata = parse_tensors(content)
        if not seal_holds(content, metadata.get("seal")):
            raise ValueError("it was changed after it was written, or an older hfclib wrote it")
        if metadata["run"] != path.parent.name:
            raise ValueError(f"it belongs to {metadata['run']}")
        return tensors, metadata
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error


def read_checkpoint(path: Path, model: nn.Module | None = None) -> bytes:
    """The content of the checkpoint at `path`, of a training of `model`, unchecked; empty if there is none.

    Raises:
        CheckpointError: it can't be read, or is larger than it can be.
    """
    try:  # the model's state and two moments, in at most 8 bytes a number
        return read_bytes(
            path, 2**26 + 24 * sum(p.numel() for p in model.parameters()) if model is not None else _LARGEST_CHECKPOINT
        )
    except FileNotFoundError:
        return b""
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def epochs_done(path: Path) -> int:
    """How many epochs the training has done whose checkpoint is at `path`; 0 if there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    content = read_checkpoint(path)
    return json.loads(opened(path, content)[1]["progress"])["epoch"] if content or path.exists() else 0


def restore_checkpoint(
    path: Path, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, content: bytes | None = None
) -> Progress:
    """Fill model, optimizer and scheduler from a checkpoint and return its Progress; a new one if there is none.

    Args:
        path: of the checkpoint.
        model, optimizer, scheduler: of the same recipe.
        content: of the checkpoint, where another process has read it.
    Raises:
        CheckpointError: the checkpoint is damaged or belongs to another network or run.
    """
    content = read_checkpoint(path, model) if content is None else content
    if not content and not path.exists():
        return Progress()
    tensors, metadata = opened(path, content)
    try:
        if not all_finite(tensors):
            raise ValueError("it holds numbers that are not finite")
        model.load_state_dict({n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")})
        for name, parameter in model.named_parameters():
            for key in _moments(optimizer):
                value = tensors[f"optimizer/{name}/{key}"]
                if value.ndim or optimizer.defaults.get("fused"):  # the others count their steps on the CPU
                    value = value.to(parameter.device)
                # The fused optimizer walks parameter and moments together: they must lie in memory alike.
                like = torch.empty_like(parameter, requires_grad=False) if value.ndim else torch.empty_like(value)
                optimizer.state[parameter][key] = like.copy_(value)
        scheduler.load_state_dict(json.loads(metadata["schedule"]))
        for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        return Progress(**json.loads(metadata["progress"]))
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _moments(optimizer: Optimizer) -> tuple[str, ...]:
    plain = isinstance(optimizer, SGD) and not optimizer.defaults["momentum"]
    return () if plain else _MOMENTS[type(optimizer)]


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"the checkpoint {path} is damaged ({error}): delete it to train from the start")
