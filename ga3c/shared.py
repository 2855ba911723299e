"""Mode a3c's shared memory: parameters, optimiser statistics and counts, which all workers read and write unlocked.

An anonymous ``memfd``, as a slab is: it needs no room in /dev/shm and no name, takes one descriptor for all tensors,
and is gone with the last process that maps it.
"""

import mmap
import os

import numpy as np
import torch
from torch import Tensor, nn

from ga3c.checkpoint import named_tensors

_ALIGNMENT_BYTES = 64
_HEADER_BYTES = 64  # a simulated device keeps its ``Timeline`` at its start
_CLOCK_OFFSET = 8


class Counts:
    """Agent steps and updates of each worker. A row is written by its worker alone, so that the sums are exact."""

    def __init__(self, rows: np.ndarray, clock: np.ndarray) -> None:
        """``rows`` is [W, 2] int64, ``clock`` [1] float64, in shared memory."""
        self._rows = rows
        self._clock = clock

    @property
    def time_s(self) -> float:
        """Seconds of training, as the learner last said."""
        return float(self._clock[0])

    @time_s.setter
    def time_s(self, seconds: float) -> None:
        self._clock[0] = seconds

    def add(self, worker: int, env_steps: int, updates: int) -> None:
        """Called by that worker."""
        self._rows[worker] += (env_steps, updates)

    @property
    def env_steps(self) -> int:
        """Of all workers, in this run."""
        return int(self._rows[:, 0].sum())

    @property
    def updates(self) -> int:
        """Of all workers, in this run."""
        return int(self._rows[:, 1].sum())


class SharedState:
    """Views of what the workers share; each side makes them from a network and an optimiser of the same shapes.

    Attributes:
      tensors: by the names that they have in a checkpoint, with the strides of the originals.
      counts: what the workers have done.
    """

    def __init__(self, network: nn.Module, optimiser: torch.optim.Optimizer, workers: int, fd: int) -> None:
        """Maps the memory behind ``fd``."""
        originals = named_tensors(network, optimiser)
        memory = mmap.mmap(fd, nbytes(network, optimiser, workers))
        rows = np.ndarray((workers, 2), np.int64, memory, _HEADER_BYTES)
        self.counts = Counts(rows, np.ndarray((1,), np.float64, memory, _CLOCK_OFFSET))
        offset = _HEADER_BYTES + _padded(16 * workers)
        self.tensors: dict[str, Tensor] = {}
        for name, original in sorted(originals.items()):  # a loaded optimiser has its statistics in another order
            flat = torch.frombuffer(memory, dtype=original.dtype, count=original.numel(), offset=offset)
            self.tensors[name] = flat.as_strided(original.size(), original.stride())
            offset += _padded(original.nbytes)

    def fill(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Copies the present values into the shared memory."""
        for name, tensor in named_tensors(network, optimiser).items():
            self.tensors[name].copy_(tensor)

    def attach(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Makes parameters and statistics the shared ones; buffers, which nobody changes, are copied."""
        for name, parameter in network.named_parameters():
            parameter.data = self.tensors[f"network.{name}"]
        for name, buffer in network.named_buffers():
            buffer.copy_(self.tensors[f"network.{name}"])
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        for index, parameter in enumerate(parameters):
            state = optimiser.state[parameter]
            state.update({name: self.tensors[f"optimiser.{index}.{name}"] for name in state})


def create_shared_memory(network: nn.Module, optimiser: torch.optim.Optimizer, workers: int) -> int:
    """Returns the descriptor of new, zeroed memory for ``SharedState``."""
    fd = os.memfd_create("ga3c-parameters", os.MFD_CLOEXEC)
    os.ftruncate(fd, nbytes(network, optimiser, workers))
    return fd


def nbytes(network: nn.Module, optimiser: torch.optim.Optimizer, workers: int) -> int:
    """Bytes that the counts and all tensors take."""
    return (
        _HEADER_BYTES
        + _padded(16 * workers)
        + sum(_padded(t.nbytes) for t in named_tensors(network, optimiser).values())
    )


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
