"""Plays rollouts in lock step with a model in the same process: what modes a2c and a3c have instead of queues."""

import time

import torch

from ga3c.envs import EnvSpec, Player
from ga3c.model import Model
from ga3c.slabs import Rollouts, Slab, SlabLayout


class Collector:
    """K environments and the memory of one segment, played from its first step to its last again and again.

    Attributes:
      seconds: what the last rollout took, by activity.
    """

    def __init__(self, player: Player, model: Model, spec: EnvSpec, t_max: int) -> None:
        """``player`` plays what ``spec`` says; a rollout has ``t_max`` steps."""
        self._player = player
        self._model = model
        envs = len(player.live)
        self._slab = Slab(SlabLayout.of(spec, segments=1, t_max=t_max, envs=envs, on_cpu=model.on_cpu))
        self._observations = torch.from_numpy(self._slab.observations[0])
        self.seconds: dict[str, float] = {}

    def collect(self) -> Rollouts:
        """Plays the next rollout; its arrays are valid until the one after it."""
        slab, player = self._slab, self._player
        self.seconds = dict.fromkeys(("environment", "inference", "copying"), 0.0)
        now = time.perf_counter()
        for t in range(slab.layout.t_max):
            slab.write_states(0, t, player.states)
            slab.live[0, t] = player.live
            now = self._charge("copying", now)
            prediction = self._model.predict(self._observations[t])
            slab.actions[0, t] = prediction.actions
            slab.values[0, t] = prediction.values
            slab.versions[0, t] = prediction.version
            now = self._charge("inference", now)
            slab.write_outcome(0, t, player.step(prediction.actions))
            now = self._charge("environment", now)
        slab.bootstrap_values[0] = self._model.predict(torch.from_numpy(player.states)).values
        self._charge("inference", now)
        return Rollouts(slab, 0, lambda _: None)

    def _charge(self, activity: str, since: float) -> float:
        now = time.perf_counter()
        self.seconds[activity] += now - since
        return now
