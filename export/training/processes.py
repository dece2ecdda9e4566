"""Several processes that train one policy together, as `torchrun` starts them: each takes its share of every batch.

Gradients of the shares are added up between the processes, so that all take the same step from the same numbers. There
is no wrapper around the module: the whole batch is drawn in every process, and only its own rows are computed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import distributed

from export.training.schedule import TrainingError

BUCKET_BYTES = 64 << 20
"""Gradients are added up in buckets of about this size: few enough messages, little enough extra memory."""


@dataclass(frozen=True)
class Processes:
    """This process among `count`; `local` counts those of one machine."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """The one process that writes."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """The rows of a batch that are this process's."""
        if batch < self.count:
            raise TrainingError(f"--batch {batch} cannot be shared by {self.count} processes; give at least one each")
        return slice(batch * self.rank // self.count, batch * (self.rank + 1) // self.count)

    def add_gradients(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """Adds up the gradients of all processes, in place."""
        if self.count == 1:
            return
        for bucket in _buckets([weight.grad for weight in weights if weight.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            distributed.all_reduce(flat)
            for gradient, summed in zip(bucket, flat.split([gradient.numel() for gradient in bucket])):
                gradient.copy_(summed.view_as(gradient))

    def add(self, values: list[float]) -> list[float]:
        """The sums of these numbers over all processes."""
        if self.count == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(tensor)
        return [float(value) for value in tensor]

    def agree(self, what: str, mine: object) -> None:
        """Makes sure that all processes say the same. Raises `TrainingError` in all of them where they do not."""
        if self.count == 1:
            return
        gathered: list[object] = [None] * self.count
        distributed.all_gather_object(gathered, mine)
        for rank, other in enumerate(gathered):
            if other != gathered[0]:
                raise TrainingError(
                    f"{what}: process {rank} has {other}, process 0 has {gathered[0]}; "
                    "all need the same command, the same data and one --out that every machine sees"
                )

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def leave(self) -> None:
        if self.count > 1:
            distributed.destroy_process_group()


ALONE = Processes()


def join(device: str) -> Processes:
    """Meets the other processes, if `torchrun` has started any."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return ALONE
    # Small sums and agreements travel through host memory in any case.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    return Processes(int(os.environ["RANK"]), count, int(os.environ["LOCAL_RANK"]))


def _buckets(gradients: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    size = 0
    for gradient in gradients:
        bucket.append(gradient)
        size += gradient.nbytes
        if size >= BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket
