"""Slabs: the shared memory in which an actor's rollouts live.

Each actor has one slab, seen by that actor and by the learner. A state is written into it once, by the actor, and read
in place twice: for prediction and for training. Only indices travel on the queues.

A slab is a ring of S segments; a segment holds T steps of the actor's K environments. Who may touch a segment is
decided by messages, never by flags in the memory: it is the actor's until the request that completes it, then the
learner's until the release message.

The memory is an anonymous ``memfd``: it needs no room in /dev/shm (64 MB under Docker), has no name, and is gone with
the last process that maps it, however that process died.
"""

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ga3c.envs import EnvSpec, Step
from ga3c.pictures import picture_in

_ALIGNMENT_BYTES = 64  # a cache line
_MOST_CHANNELS = 16  # of images that are kept channels-last: more are not worth a copy each


@dataclass(frozen=True)
class SlabLayout:
    """Shape of a slab; both sides of it must agree.

    Attributes:
      segments: S, rollouts of one environment that may be in flight, the one being written included; at least 2.
      t_max: T, steps in a segment.
      envs: K, environments of the actor.
      observation_shape: shape of one state.
      observation_dtype: numpy name of a state's type, ``uint8`` or ``float32``.
      channels_last: whether states [C, H, W] lie in memory as [H, W, C].
    """

    segments: int
    t_max: int
    envs: int
    observation_shape: tuple[int, ...]
    observation_dtype: str
    channels_last: bool = False

    @classmethod
    def of(cls, spec: EnvSpec, *, segments: int, t_max: int, envs: int, on_cpu: bool) -> Self:
        """For the states of an environment.

        With ``on_cpu`` the model computes on the actors' cores, where convolutions read images channels-last: the
        actor's one copy turns them, at half of what each prediction and update would take to. Another device turns
        them in no time, and leaves the cores to the actors.
        """
        shape = spec.observation_shape
        picture = picture_in(shape, channels_last=spec.channels_last)
        turns = (
            on_cpu
            and len(shape) == 3
            and picture is not None
            and not picture.channels_last
            and picture.channels <= _MOST_CHANNELS < min(picture.height, picture.width)
        )
        return cls(segments, t_max, envs, shape, spec.observation_dtype, channels_last=turns)

    def fields(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name to (shape, dtype) of every array in the slab, in the order in which they lie in memory."""
        steps = (self.segments, self.t_max)
        return {
            "observations": ((*steps, self.envs, *self.observation_shape), self.observation_dtype),
            "values": ((*steps, self.envs), "float32"),
            "rewards": ((*steps, self.envs), "float32"),
            "actions": ((*steps, self.envs), "int64"),
            "versions": (steps, "int64"),
            "live": ((*steps, self.envs), "bool"),
            "terminated": ((*steps, self.envs), "bool"),
            "truncated": ((*steps, self.envs), "bool"),
            "bootstrap_values": ((self.segments, self.envs), "float32"),
            "begun": ((1,), "bool"),
            "clock": ((len(ActorClock.FIELDS),), "float64"),
        }

    @property
    def nbytes(self) -> int:
        """Bytes of shared memory that one slab takes."""
        return sum(_padded(shape, dtype) for shape, dtype in self.fields().values())


@dataclass(eq=False)
class StepArrays:
    """What a slab has for each step: of all of its steps, [S, T, K, ...], or of one, [K, ...]; see ``Slab``."""

    observations: NDArray[Any]
    live: NDArray[np.bool_]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    actions: NDArray[np.int64]
    values: NDArray[np.float32]

    @property
    def live_steps(self) -> int:
        """How many are live."""
        return _count(self.live)


class Slab(StepArrays):
    """Views of one slab's arrays.

    Attributes (S segments, T steps, K environments):
      observations: [S, T, K, ...] s_t, in memory as the layout says. Written by the actor.
      live: [S, T, K] bool, whether step t is a transition (see ``returns``). Written by the actor.
      rewards: [S, T, K] r_t, as trained on (clipped where that is asked for). Written by the actor.
      terminated, truncated: [S, T, K] bool, how the episode ended after step t, if it did. Written by the actor.
      actions: [S, T, K] int64, a_t. Written by a predictor.
      values: [S, T, K] V(s_t). Written by a predictor.
      versions: [S, T] model version that chose a_t. Written by a predictor.
      bootstrap_values: [S, K] V(s_T). Written by the predictor that answers the next segment's first request.
      begun: [1] bool, whether the actor's turn to make its environments has come. Written by the actor.
      clock: where the actor's time goes, see ``ActorClock``. Written by the actor, read at any time.
      steps: [S][T] views of what belongs to one step; made once, because making them takes a while.
    """

    versions: NDArray[np.int64]
    bootstrap_values: NDArray[np.float32]
    begun: NDArray[np.bool_]
    clock: NDArray[np.float64]

    def __init__(self, layout: SlabLayout, fd: int | None = None) -> None:
        """Maps the slab behind ``fd``, which may be closed afterwards; without one it is this process's alone."""
        self.layout = layout
        memory = mmap.mmap(-1 if fd is None else fd, layout.nbytes)  # unmapped when the last view is gone
        offset = 0
        for name, (shape, dtype) in layout.fields().items():
            if name == "observations" and layout.channels_last:
                *others, channels, height, width = shape
                turned = np.ndarray((*others, height, width, channels), dtype, memory, offset)
                self.observations = np.moveaxis(turned, -1, -3)
            else:
                setattr(self, name, np.ndarray(shape, dtype, memory, offset))
            offset += _padded(shape, dtype)
        arrays = [getattr(self, field.name) for field in fields(StepArrays)]
        self.steps = [
            [StepArrays(*(array[segment, t] for array in arrays)) for t in range(layout.t_max)]
            for segment in range(layout.segments)
        ]

    def write_states(self, segment: int, t: int, states: NDArray[Any]) -> None:
        """Writes the states [K, ...] of step ``t``."""
        kept = self.steps[segment][t].observations
        if not self.layout.channels_last:
            kept[...] = states
            return
        for channel in range(states.shape[1]):  # three times as fast as numpy's own copy of all of them
            kept[:, channel] = states[:, channel]

    def write_outcome(self, segment: int, t: int, outcome: Step) -> None:
        """Writes what followed the actions of step ``t``."""
        step = self.steps[segment][t]
        step.rewards[...] = outcome.rewards
        step.terminated[...] = outcome.terminated
        step.truncated[...] = outcome.truncated


class Place:
    """Where the states of one request lie: of K environments, at a step of a segment of a slab.

    Attributes:
      slab, segment, step: where.
      arrays: what the slab has there.
      envs: K, how many states.
    """

    __slots__ = ("arrays", "envs", "segment", "slab", "step")

    def __init__(self, slab: Slab, segment: int, step: int) -> None:
        """Made once for each step of a slab, and read by every request for it."""
        self.slab = slab
        self.segment = segment
        self.step = step
        self.arrays = slab.steps[segment][step]
        self.envs = slab.layout.envs


class Rollouts:
    """T steps of the K environments of one actor: one complete segment of its slab, to be trained on.

    Attributes:
      slab, segment: where they lie.
    """

    def __init__(self, slab: Slab, segment: int, release: Callable[[int], None]) -> None:
        """``release(segment)`` gives it back; until then it is the learner's."""
        self.slab = slab
        self.segment = segment
        self._release = release

    @property
    def layout(self) -> SlabLayout:
        """Of the slab."""
        return self.slab.layout

    @property
    def count(self) -> int:
        """Rollouts: K."""
        return self.slab.layout.envs

    @property
    def samples(self) -> int:
        """Steps of all rollouts, live or not: T * K."""
        return self.slab.layout.t_max * self.slab.layout.envs

    def field(self, name: str) -> NDArray[np.generic]:
        """A view of one of the slab's arrays: [T, K, ...], [T] for versions, [K] for bootstrap values."""
        view: NDArray[np.generic] = getattr(self.slab, name)[self.segment]
        return view

    @property
    def live_steps(self) -> int:
        """Of the rollouts; the others are no transitions."""
        return _count(self.slab.live[self.segment])

    def release(self) -> None:
        """Gives the segment back to its actor; its arrays must not be read after that."""
        self._release(self.segment)


class ActorClock:
    """Seconds an actor has spent in each of its activities since it started; the names index ``Slab.clock``."""

    FIELDS = ("environment", "waiting_for_predictions", "waiting_for_segments")
    ENVIRONMENT, PREDICTION, SEGMENT = range(3)


def create_slab_memory(layout: SlabLayout) -> int:
    """Returns the descriptor of new, zeroed shared memory for a slab of this layout."""
    fd = os.memfd_create("ga3c-slab", os.MFD_CLOEXEC)
    os.ftruncate(fd, layout.nbytes)
    return fd


def _count(flags: NDArray[np.bool_]) -> int:
    """``flags.sum()`` without the Python in it, which takes ten times as long as a few flags do."""
    return flags.tobytes().count(1)


def _padded(shape: tuple[int, ...], dtype: str) -> int:
    nbytes = prod(shape) * np.dtype(dtype).itemsize
    return -(-nbytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
