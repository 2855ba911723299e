"""Whole games of one policy, moment by moment."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ga3c.envs import FilmedEnv
from ga3c.policy import Policy


class Moment(NamedTuple):
    """A state as it is seen, and what the policy makes of it.

    Fields:
      frame: [H, W, 3] uint8.
      probabilities: [A] float32.
      value: V(s), in discounted training rewards.
      action: the one chosen.
      score: of the game so far.
    """

    frame: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    value: float
    action: int
    score: float


class Games:
    """Games in one environment, to be looped over.

    Attributes:
      scores: of the games that have ended.
      score: of the game that is being played.
    """

    def __init__(self, policy: Policy, env: FilmedEnv, *, greedy: bool) -> None:
        self._policy = policy
        self._env = env
        self._greedy = greedy
        self.scores: list[float] = []
        self.score = 0.0

    def moments(self, episodes: int) -> Iterator[Moment]:
        """Every state of that many games, the final ones included; the next step follows when the next is asked for.

        Raises:
          EnvError: the environment failed, or cannot draw itself.
        """
        states, over = self._env.reset(), False
        while True:
            judgement = self._policy.judge(states)
            actions = self._policy.choose(judgement, greedy=self._greedy)
            yield Moment(
                self._env.frame(), judgement.probabilities[0], float(judgement.values[0]), int(actions[0]), self.score
            )
            if len(self.scores) == episodes:
                return
            if over:  # and so seen with its score
                self.score = 0.0
            step = self._env.step(actions)
            states, over = step.states, bool(step.game_over[0])
            self.score += float(step.game_rewards[0])
            if over:
                self.scores.append(self.score)
