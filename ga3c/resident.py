"""How states come to a device: each crosses once, from where it lies in a slab, and stays until it is trained on."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor

from ga3c.slabs import Place, Rollouts, Slab


class PinnedSlabs:
    """Slabs whose states the device copies from where they lie, because their memory is page-locked.

    That spares the host a copy of each state. Slabs are pinned when they are first asked about, which takes about a
    quarter of a second a GB, and released when they go.
    """

    def __init__(self, runtime: Any, device: torch.device) -> None:
        """``runtime`` is what ``torch.cuda.cudart()`` returns."""
        self._runtime = runtime
        self._there = torch.empty(1, device=device)
        self._pinned: WeakKeyDictionary[Slab, bool] = WeakKeyDictionary()
        self._lock = threading.Lock()  # guards the dictionary

    def pin(self, slab: Slab) -> bool:
        """Whether a slab is pinned; it is tried once."""
        with self._lock:
            if slab not in self._pinned:
                self._pinned[slab] = self._register(slab)
            return self._pinned[slab]

    def _register(self, slab: Slab) -> bool:
        states = slab.observations
        address, nbytes = states.ctypes.data, states.nbytes
        with torch.cuda.device_of(self._there):  # type: ignore[no-untyped-call]  # not device 0, if it is another
            if int(self._runtime.cudaHostRegister(address, nbytes, 0)) == 0:
                release = finalize(slab, self._unregister, address)  # before its memory is unmapped
                release.atexit = False  # the process's end does that
                return True
            # CUDA keeps the refusal for the next launch to report: this one.
            with suppress(RuntimeError):
                self._there.zero_()
            return False

    def _unregister(self, address: int) -> None:
        with torch.cuda.device_of(self._there):  # type: ignore[no-untyped-call]
            self._runtime.cudaHostUnregister(address)


class ResidentStates:
    """A mirror of each slab's states on the device; it goes when its slab does.

    Who may touch a segment of a mirror is whoever may touch that of the slab: predictors while it is played, then a
    trainer until the segment is given back.
    """

    def __init__(self, device: torch.device, most_bytes: int) -> None:
        """Mirrors slabs as they come, of ``most_bytes`` together at most; the states of others cross twice."""
        self._device = device
        self._most_bytes = most_bytes
        self._mirrors: WeakKeyDictionary[Slab, Tensor | None] = WeakKeyDictionary()
        self._making = threading.Lock()  # guards the mirrors

    def keep(self, places: Sequence[Place], states: Tensor) -> None:
        """Keeps the states [B, ...] of a batch on the device, those of ``places`` one after the other."""
        offset = 0
        for place in places:
            mirror = self._mirror(place.slab)
            if mirror is not None:
                mirror[place.segment, place.step].copy_(states[offset : offset + place.envs])
            offset += place.envs

    def gather(self, rollouts: Sequence[Rollouts]) -> Tensor | None:
        """The states [B, ...] of complete rollouts, ordered by rollouts, step, environment; None if some are not here.

        Every one of them has been predicted for, and was kept then.
        """
        found = []
        for r in rollouts:
            mirror = self._mirror(r.slab)
            if mirror is None:
                return None
            found.append(mirror[r.segment].flatten(0, 1))
        return torch.cat(found)

    def _mirror(self, slab: Slab) -> Tensor | None:
        """[S, T, K, ...] in the slab's own order in memory, or None if there was no room for it."""
        with self._making:
            if slab not in self._mirrors:
                self._mirrors[slab] = self._make(slab)
            return self._mirrors[slab]

    def _make(self, slab: Slab) -> Tensor | None:
        like = torch.from_numpy(slab.observations)
        used = sum(mirror.nbytes for mirror in self._mirrors.values() if mirror is not None)
        if used + like.nbytes > self._most_bytes:
            return None
        with torch.inference_mode(False):  # they are trained on
            return torch.empty_like(like, device=self._device)
