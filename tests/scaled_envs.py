"""Environments whose observations lie otherwise within their bounds than those of ``case_envs``."""

from typing import Any, ClassVar

import envpool
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from tests.case_envs import Board, Intro, Sign


class BoardOf255(Board):
    """The board of 0 and 1, whose bounds say 0 to 255."""

    observation_space = Box(0, 255, (8,), np.uint8)


class ForEverBlack(Intro):
    """A picture that never changes."""

    def observe(self) -> np.ndarray:
        return np.zeros((1, 84, 84), np.uint8)


class Grid(gymnasium.Env[np.ndarray, int]):
    """The picture of EnvPool's MiniGrid: bytes [7, 7, 3] of at most 10, whose bounds say 0 to 255."""

    observation_space = Box(0, 255, (7, 7, 3), np.uint8)
    action_space = Discrete(7)

    def __init__(self) -> None:
        self.pool = envpool.make_gymnasium("MiniGrid-Empty-6x6-v0", num_envs=1, seed=1)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=kwargs.get("seed"))
        observations, _ = self.pool.reset()
        return observations["image"][0].copy(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observations, rewards, terminated, truncated, _ = self.pool.step(np.array([action], np.int32))
        return observations["image"][0].copy(), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}

    def close(self) -> None:
        self.pool.close()


class Counted(Sign):
    """Counts those that are open; fails in the hundredth step of a process, if told to."""

    opened: ClassVar[int] = 0
    most: ClassVar[int] = 0
    fails: ClassVar[bool] = False
    taken: ClassVar[int] = 0
    observation_space = Box(0, 255, (40, 40), np.uint8)

    def __init__(self) -> None:
        Counted.opened += 1
        Counted.most = max(Counted.most, Counted.opened)

    def observe(self) -> np.ndarray:
        return np.full((40, 40), 200 if self.bit else 50, np.uint8)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        Counted.taken += 1
        if Counted.fails and Counted.taken == 100:
            raise RuntimeError("the emulator is on fire")
        return super().step(action)

    def close(self) -> None:
        Counted.opened -= 1


for _made in (BoardOf255, ForEverBlack, Grid, Counted):
    gymnasium.register(f"{_made.__name__}-v0", entry_point=f"{__name__}:{_made.__name__}")
