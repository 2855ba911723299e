"""The actor: steps its environments with actions that the model chose. It holds no parameters and no torch."""

import contextlib
import dataclasses
import functools
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from ga3c.channels import NO_SEGMENT, ActorPort, ChannelClosed
from ga3c.envs import EnvConfig, Player, VectorEnv, cores_to_make, env_seeds, load_backends, make_env
from ga3c.slabs import ActorClock, Slab, SlabLayout

_POLL_S = 0.05  # how often an actor looks whether its turn to make environments has come


class Actor:
    """Steps K environments in lock step and writes what happens into its slab."""

    def __init__(self, env: VectorEnv, slab: Slab, port: ActorPort) -> None:
        """``port`` speaks about ``slab``; ``env`` has as many environments as the slab has columns."""
        self._env = env
        self._slab = slab
        self._port = port

    def run(self) -> None:
        """Plays until the learner closes the channel, or asks the actor to leave and the last rollout is complete."""
        with contextlib.suppress(ChannelClosed):
            self._play()

    def _play(self) -> None:
        slab, port = self._slab, self._port
        clock = slab.clock.data.cast("B").cast("d")  # a number of it is read and written faster so
        now = time.perf_counter()
        player = Player(self._env)
        completed = NO_SEGMENT
        while True:
            now = _charge(clock, ActorClock.ENVIRONMENT, now)
            segment = port.acquire_segment()
            now = _charge(clock, ActorClock.SEGMENT, now)
            # The answer to the last request completes the last rollout; what is not played is no step.
            is_last = port.leaving
            if is_last and completed == NO_SEGMENT:
                return
            for t in range(slab.layout.t_max):
                step = slab.steps[segment][t]
                slab.write_states(segment, t, player.states)
                step.live[...] = False if is_last else player.live
                port.request_actions(segment, t, completed, player.episodes)
                player.episodes.clear()
                completed = NO_SEGMENT
                now = _charge(clock, ActorClock.ENVIRONMENT, now)
                port.wait_for_actions()
                now = _charge(clock, ActorClock.PREDICTION, now)
                if is_last:
                    return
                slab.write_outcome(segment, t, player.step(step.actions))
            completed = segment


def _charge(clock: "memoryview[float]", activity: int, since: float) -> float:
    """Adds the time since ``since`` to an activity and returns the time now."""
    now = time.perf_counter()
    clock[activity] += now - since
    return now


@functools.cache
def _made() -> int:
    """A file with a byte for each actor that has made its environments."""
    return os.memfd_create("ga3c-made", os.MFD_CLOEXEC)


@contextlib.contextmanager
def _in_turn(index: int, first: int, at_once: int, end: socket.socket) -> Iterator[None]:
    """Waits until an actor may make its environments: the ``first`` ones, ``at_once`` at a time, and then all others.

    Raises:
      ChannelClosed: the learner is gone.

    All cores are busy either way, and so the model is trained while others are made. To make all of them in turn would
    keep the last waiting for long: those that play take most of the cores. Who dies before it has made its own is
    replaced, and makes them then.
    """
    before = max(0, min(index + 1 - at_once, first))
    while os.pread(_made(), before, 0) != bytes([True] * before):
        with contextlib.suppress(BlockingIOError):
            if not end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                raise ChannelClosed("the learner is gone")
        time.sleep(_POLL_S)
    yield
    os.pwrite(_made(), bytes([True]), index)


def prepare() -> None:
    """What all actors share, in the forkserver."""
    load_backends()
    _made()


def main(
    settings: dict[str, Any],
    index: int,
    generation: int,
    end: socket.socket,
    slab_fd: int,
    at_end: ExitStack,
) -> None:
    """The life of an actor process; ``settings`` are those of ``actor_settings``.

    It registers the closing of the environments on ``at_end``, which the caller closes: see ``ForkServer``.
    """
    layout = SlabLayout(**settings["layout"] | {"observation_shape": tuple(settings["layout"]["observation_shape"])})
    slab = Slab(layout, slab_fd)
    os.close(slab_fd)
    seeds = env_seeds(settings["seed"], index, generation, layout.envs)
    config = EnvConfig(**settings["env"])
    at_once = max(1, len(os.sched_getaffinity(0)) // cores_to_make(config, layout.envs))
    with contextlib.suppress(ChannelClosed):
        with _in_turn(index, settings["first"], at_once, end):
            slab.begun[0] = True
            env = make_env(config, seeds, in_worker=True)
            at_end.callback(env.close)
        Actor(env, slab, ActorPort(end, layout.segments)).run()


def actor_settings(env: EnvConfig, layout: SlabLayout, seed: int, first: int) -> dict[str, Any]:
    """What ``main`` has to know, as plain values; ``first`` actors are to play before the others, at the beginning."""
    return {"env": dataclasses.asdict(env), "layout": dataclasses.asdict(layout), "seed": seed, "first": first}
