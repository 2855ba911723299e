"""The actor: steps its environments with actions that the model chose. It holds no parameters and no torch."""

import contextlib
import time

import numpy as np

from ga3c.channels import NO_SEGMENT, ActorPort, ChannelClosed, Episode
from ga3c.envs import VectorEnv
from ga3c.slabs import ActorClock, Slab


class Actor:
    """Steps K environments in lock step and writes what happens into its slab."""

    def __init__(self, env: VectorEnv, slab: Slab, port: ActorPort) -> None:
        """``port`` speaks about ``slab``; ``env`` has as many environments as the slab has columns."""
        self._env = env
        self._slab = slab
        self._port = port
        self._returns = np.zeros(env.num_envs)
        self._lengths = np.zeros(env.num_envs, np.int64)
        self._episodes: list[Episode] = []

    def run(self) -> None:
        """Plays until the learner closes the channel or asks to stop."""
        with contextlib.suppress(ChannelClosed):
            self._play()
        # Its environments end with the process: closing them by hand could only hang or fail.

    def _play(self) -> None:
        slab, port, clock = self._slab, self._port, self._slab.clock
        now = time.perf_counter()
        states = self._env.reset()
        live = np.ones(self._env.num_envs, np.bool_)
        completed = NO_SEGMENT
        while True:
            now = _charge(clock, ActorClock.ENVIRONMENT, now)
            segment = port.acquire_segment()
            now = _charge(clock, ActorClock.SEGMENT, now)
            for t in range(slab.layout.t_max):
                slab.observations[segment, t] = states
                slab.live[segment, t] = live
                port.request_actions(segment, t, completed, self._episodes)
                self._episodes.clear()
                completed = NO_SEGMENT
                now = _charge(clock, ActorClock.ENVIRONMENT, now)
                port.wait_for_actions()
                now = _charge(clock, ActorClock.PREDICTION, now)
                step = self._env.step(slab.actions[segment, t])
                states = step.states
                slab.rewards[segment, t] = step.rewards
                slab.terminated[segment, t] = step.terminated & live
                slab.truncated[segment, t] = step.truncated & live
                self._count(live, step.game_rewards, step.game_over)
                # A step that follows an episode's end only resets: it is no transition, and cannot end an episode.
                live = ~((step.terminated | step.truncated) & live)
            completed = segment

    def _count(self, live: np.ndarray, game_rewards: np.ndarray, game_over: np.ndarray) -> None:
        """Adds a step to the games being played; a finished game goes out with the next request."""
        self._returns += game_rewards
        self._lengths += live
        for k in np.flatnonzero(game_over):  # which can be at a step that resets, see EnvPoolEnv
            self._episodes.append(Episode(float(self._returns[k]), int(self._lengths[k])))
            self._returns[k] = 0.0
            self._lengths[k] = 0


def _charge(clock: np.ndarray, activity: int, since: float) -> float:
    """Adds the time since ``since`` to an activity and returns the time now."""
    now = time.perf_counter()
    clock[activity] += now - since
    return now
