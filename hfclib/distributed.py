"""One training by several processes, on one machine or more, started by `torchrun`: through Lightning Fabric.

Every process draws the same batches and takes its part of each, so a step is the step that one process would make of
the whole batch. Only dropout differs: each process drops for its own images. The first process reads and writes the
files and shares what it reads, so that no other machine needs them.
"""

import functools
import os

import numpy as np
import torch
from torch import Tensor, nn

from hfclib.devices import best_device


class Alone:
    """A training by one process: everything stays as it is."""

    rank, world, first = 0, 1, True

    def device(self) -> torch.device:
        """Where this process trains."""
        return best_device()

    def prepare(self, model: nn.Module) -> nn.Module:
        """Make the model's BatchNorm layers see whole batches; in place, before any training."""
        return model

    def setup(self, model: nn.Module) -> nn.Module:
        """What is called in place of the model in training, after the first process's weights are in all of them."""
        return model

    def inner(self, model: nn.Module) -> nn.Module:
        """The model itself, of what `setup` returned: for passes whose gradients stay in this process."""
        return model

    def part(self, tensor: Tensor) -> Tensor:
        """This process's images or labels of a batch, (n, ...)."""
        return tensor

    def backward(self, loss: Tensor, count: int) -> None:
        """Gradients of the mean loss of a batch of `count` images, from the mean loss of this process's part."""
        loss.backward()

    def mean(self, loss: Tensor, count: int) -> Tensor:
        """The mean loss of a batch of `count` images; all processes must call this together."""
        return loss

    def share(self, content: bytes) -> bytes:
        """The first process's content, in every process; all must call this together."""
        return content


class Several:
    """A training by all processes that torchrun started; methods as in `Alone`."""

    def __init__(self) -> None:
        try:
            from lightning_fabric import Fabric
        except ImportError as error:
            raise ValueError("a training by several processes needs Lightning Fabric: "
                             "pip install 'hfclib[distributed]'") from error  # fmt: skip
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        self.fabric = Fabric(accelerator=best_device().type, devices=here, strategy="ddp",
                             num_nodes=int(os.environ["WORLD_SIZE"]) // here)  # fmt: skip
        self.fabric.launch()
        self.rank, self.world, self.first = self.fabric.global_rank, self.fabric.world_size, self.fabric.is_global_zero

    def device(self) -> torch.device:
        return self.fabric.device

    def prepare(self, model: nn.Module) -> nn.Module:
        if self.fabric.device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(model)
        for module in model.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = WholeBatchNorm  # the same parameters and averages, another forward
        return model

    def setup(self, model: nn.Module) -> nn.Module:
        return self.fabric.setup_module(model)

    def inner(self, model: nn.Module) -> nn.Module:
        return model.module

    def part(self, tensor: Tensor) -> Tensor:
        # A rest of fewer images than processes goes to all of them: without an image there is no loss.
        return tensor if len(tensor) < self.world else tensor[self.rank :: self.world]

    def backward(self, loss: Tensor, count: int) -> None:
        # Gradients are averaged over the processes, whose parts may differ by an image.
        self.fabric.backward(loss * (self.world * self._weight(count)))

    def mean(self, loss: Tensor, count: int) -> Tensor:
        return self.fabric.all_reduce(loss * self._weight(count), reduce_op="sum")

    def _weight(self, count: int) -> float:
        return 1 / self.world if count < self.world else len(range(self.rank, count, self.world)) / count

    def share(self, content: bytes) -> bytes:
        size = self.fabric.broadcast(torch.tensor(len(content), device=self.fabric.device)).item()
        buffer = torch.empty(size, dtype=torch.uint8)
        if self.first:
            buffer = torch.from_numpy(np.frombuffer(content, np.uint8).copy())
        buffer = buffer.to(self.fabric.device)
        if size:
            torch.distributed.broadcast(buffer, 0)
        return buffer.cpu().numpy().tobytes()


class WholeBatchNorm(nn.BatchNorm2d):
    """BatchNorm with the statistics of the whole batch, of which each process has a part, on any device."""

    def forward(self, images: Tensor) -> Tensor:
        """Normalised maps (n, C, H, W) of this process's maps."""
        if not self.training:
            return super().forward(images)
        from torch.distributed.nn.functional import all_reduce  # has gradients, unlike the one that is usual

        x = images.float()
        count = all_reduce(x.new_tensor(x.numel() / x.shape[1]))
        mean = all_reduce(x.sum((0, 2, 3))) / count
        centred = x - mean[:, None, None]
        var = all_reduce(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(images.dtype)


ALONE = Alone()


@functools.cache
def team() -> Alone | Several:
    """The processes of this training: those that torchrun started, or this one alone.

    Raises:
        ValueError: torchrun started several, and Lightning Fabric is not installed.
    """
    return Several() if int(os.environ.get("WORLD_SIZE", 1)) > 1 and "LOCAL_WORLD_SIZE" in os.environ else ALONE
