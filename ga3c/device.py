"""Devices by name: which there are, what they compute in, and how networks and memory are laid out for them."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ga3c.choices import Precision, check_device
from ga3c.curves import is_simulated
from ga3c.errors import UsageError


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """Moves a network to where it runs, in the layout in which convolutions are fastest."""
    network.to(device)
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


@contextmanager
def plain_torch(dtype: torch.dtype | None = None) -> Iterator[None]:
    """Resets, inside the block, what user code may have changed in torch: default device, inference and grad mode.

    These are per thread. The default dtype is shared by all threads, and is set only if ``dtype`` is given: a user's
    own network may need the default that its module has set.
    """
    before = torch.get_default_dtype()
    if dtype is not None:
        torch.set_default_dtype(dtype)
    try:
        with torch.device("cpu"), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        if dtype is not None:
            torch.set_default_dtype(before)


def keep_freed_memory() -> None:
    """Tells glibc to keep the memory that is freed, for the whole process.

    A batch's activations are large: given back to the kernel, they are mapped and zeroed page by page again in every
    update, a fifth of its time on a CPU.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        # M_ARENA_MAX: the arenas of threads are too small for it. The rest are in bytes.
        m_arena_max, m_mmap_threshold, m_trim_threshold, m_top_pad = -8, -3, -1, -2
        libc.mallopt(m_arena_max, 1)
        libc.mallopt(m_mmap_threshold, 32 << 20)
        libc.mallopt(m_trim_threshold, 1 << 30)
        libc.mallopt(m_top_pad, 64 << 20)


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
      UsageError: there is no such device.
    """
    check_device(name)
    if is_simulated(name):
        raise UsageError(f"--device: got {name!r}, which computes nothing; auto, cpu, cuda or cuda:N would be right")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UsageError(
            f"--device: got {name!r}, but this machine has {count} CUDA devices; auto or cpu would be right"
        )
    return device


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """``auto`` is bf16 on CPUs that compute in it, tf32 on CUDA, else fp32.

    Raises:
      UsageError: the device cannot do it.
    """
    if precision == "auto":
        if device.type == "cuda":
            return "tf32"
        return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"
    if precision == "tf32" and device.type != "cuda":
        raise UsageError(f"--precision: tf32 needs --device cuda, got {device}; fp32 or bf16 would be right")
    return precision
