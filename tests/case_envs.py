"""Small environments that each stand for a situation users of such software have reported.

All are variations of one task: ten steps, reward 1 for the action that names the bit that is shown. Acting at random
scores 5, the optimum is 10. The report that each one stands for is named beside it.
"""

import subprocess
import sys
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Sign(gymnasium.Env[np.ndarray, int]):
    """The task itself, with a one-hot vector as its observation."""

    observation_space = Box(-1.0, 1.0, (2,), np.float32)
    action_space = Discrete(2)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=kwargs.get("seed"))
        self.bit, self.steps = int(self.np_random.integers(2)), 0
        return self.observe(), self.info()

    def observe(self) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[self.bit]

    def info(self) -> dict[str, Any]:
        return {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = float(int(action) == self.bit)
        self.steps += 1
        self.bit = int(self.np_random.integers(2))
        return self.observe(), reward, self.steps >= 10, False, self.info()


class Process(Sign):
    """Owns a process that ``close`` ends, as games behind a server, a browser or a simulator do (ray#4520, #8030)."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "3271"])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Board(Sign):
    """A board of bytes, 0 or 1 (hill-a/stable-baselines#681, SB3#1162)."""

    observation_space = Box(0, 1, (8,), np.uint8)

    def observe(self) -> np.ndarray:
        board = np.zeros(8, np.uint8)
        board[self.bit] = 1
        return board


class LegalMoves(Sign):
    """``info`` has an array whose length changes (SB3#869)."""

    def info(self) -> dict[str, Any]:
        return {"legal_moves": np.arange(1 + self.np_random.integers(5))}


class Winner(Sign):
    """``info`` has a text or a number under one key (SB3#869)."""

    def info(self) -> dict[str, Any]:
        return {"winner": "left" if self.bit else 3}


class Single(Sign):
    """Allows one emulator a process (openai/retro#2, #64)."""

    alive: ClassVar[int] = 0
    observation_space = Box(0, 255, (84, 84, 3), np.uint8)

    def __init__(self) -> None:
        if Single.alive:
            raise RuntimeError("only one emulator in a process")
        Single.alive += 1

    def observe(self) -> np.ndarray:
        return np.full((84, 84, 3), 200 if self.bit else 50, np.uint8)

    def close(self) -> None:
        Single.alive = 0


def _patch(bit: int, value: float, dtype: type) -> np.ndarray:
    """A picture [1, 84, 84] with a bright square on the left or on the right."""
    picture = np.zeros((1, 84, 84), dtype)
    left = 10 if bit else 50
    picture[0, 30:50, left : left + 20] = value
    return picture


class Intro(Sign):
    """Is black for the first 450 steps of an instance, as behind a title or a loading screen (SB3#268)."""

    observation_space = Box(0, 255, (1, 84, 84), np.uint8)
    played = 0

    def observe(self) -> np.ndarray:
        return _patch(self.bit, 200, np.uint8) if self.played > 450 else np.zeros((1, 84, 84), np.uint8)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.played += 1
        return super().step(action)


class FloatPicture(Sign):
    """Pictures of 0.0 to 1.0 (pytorch-a2c-ppo-acktr-gail PR#40)."""

    observation_space = Box(0.0, 1.0, (1, 84, 84), np.float32)

    def observe(self) -> np.ndarray:
        return _patch(self.bit, 0.8, np.float32)


class Planes(Sign):
    """Twenty planes, in the last dimension (SB3#103, #142)."""

    observation_space = Box(0, 255, (84, 84, 20), np.uint8)

    def observe(self) -> np.ndarray:
        planes = np.zeros((84, 84, 20), np.uint8)
        planes[..., self.bit] = 255
        return planes


class Exits(Sign):
    """Calls ``sys.exit`` once in each process, in a step (rlcode PR#123)."""

    taken: ClassVar[int] = 0

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        Exits.taken += 1
        if Exits.taken == 300:
            sys.exit()
        return super().step(action)


class Endless(Sign):
    """An episode that never ends (ray#26241)."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps = 0
        return super().step(action)


for _made in (Sign, Process, Board, LegalMoves, Winner, Single, Intro, FloatPicture, Planes, Exits, Endless):
    gymnasium.register(f"{_made.__name__}-v0", entry_point=f"{__name__}:{_made.__name__}")
