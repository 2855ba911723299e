"""States that stay on the device from their prediction until they are trained on, so that each crosses to it once."""

import threading
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ga3c.slabs import Rollouts, Slab


class Place(NamedTuple):
    """Where the states of one request lie: of K environments, at a step of a segment of a slab."""

    slab: Slab
    segment: int
    step: int


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
            count = place.slab.layout.envs
            if mirror is not None:
                mirror[place.segment, place.step].copy_(states[offset : offset + count])
            offset += count

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
