"""Tiny environments whose returns are known in closed form, registered with Gymnasium when this module is imported."""

import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class TerminalReward(gymnasium.Env[np.ndarray, int]):
    """Three steps; the only reward, +1, comes with the terminal step, if its action was 1."""

    observation_space = Box(0.0, 1.0, (3,), np.float32)
    action_space = Discrete(2)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=kwargs.get("seed"))
        self._t = 0
        return self._state(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._t += 1
        terminated = self._t == 3
        return self._state(), float(terminated and action == 1), terminated, False, {}

    def _state(self) -> np.ndarray:
        return np.eye(4, 3, dtype=np.float32)[self._t]


class Drawn(TerminalReward):
    """Draws itself, with odd sides: red, and a line more of it white with each step."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def render(self) -> np.ndarray:  # type: ignore[override]
        picture = np.full((33, 51, 3), (255, 0, 0), np.uint8)
        picture[: self._t] = 255
        return picture


class OnlyTruncation(gymnasium.Env[np.ndarray, int]):
    """Reward 1 for ever, cut after 5 steps: the value of its one state is 1 / (1 - discount)."""

    observation_space = Box(0.0, 1.0, (1,), np.float32)
    action_space = Discrete(2)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=kwargs.get("seed"))
        self._t = 0
        return np.ones(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._t += 1
        return np.ones(1, np.float32), 1.0, False, self._t == 5, {}


class Identity(gymnasium.Env[np.ndarray, int]):
    """Ten steps; reward 1 where the action names the observation, which is drawn anew each step."""

    observation_space = Box(0.0, 1.0, (4,), np.float32)
    action_space = Discrete(4)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=kwargs.get("seed"))
        self._t = 0
        return self._draw(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = float(action == self._target)
        self._t += 1
        return self._draw(), reward, self._t == 10, False, {}

    def _draw(self) -> np.ndarray:
        self._target = int(self.np_random.integers(4))
        return np.eye(4, dtype=np.float32)[self._target]


class ImageIdentity(Identity):
    """The same, where the observation is a picture whose bright quarter has the action's number."""

    observation_space = Box(0, 255, (1, 84, 84), np.uint8)

    def _draw(self) -> np.ndarray:
        self._target = int(self.np_random.integers(4))
        picture = np.full((1, 84, 84), 80, np.uint8)
        row, column = divmod(self._target, 2)
        picture[0, 42 * row : 42 * (row + 1), 42 * column : 42 * (column + 1)] = 160
        return picture


class Raises(TerminalReward):
    """Fails in its third step."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        state, reward, terminated, truncated, info = super().step(action)
        if terminated:
            raise RuntimeError("the emulator is on fire")
        return state, reward, terminated, truncated, info


class Breaks(TerminalReward):
    """Returns in its third step what it must not; what that is, a subclass says."""

    state: Any = np.zeros(3, np.float32)
    reward: Any = 0.0

    def step(self, action: int) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        state, reward, terminated, truncated, info = super().step(action)
        return (self.state, self.reward, terminated, truncated, info) if terminated else (
            state, reward, terminated, truncated, info
        )  # fmt: skip


class NanState(Breaks):
    state = np.full(3, np.nan, np.float32)


class WrongShape(Breaks):
    state = np.zeros(4, np.float32)


class WrongDtype(Breaks):
    state = np.array(["a", "b", "c"])


class OutOfRange(Breaks):
    state = np.array([0.0, 7.0, 0.0], np.float32)


class NanReward(Breaks):
    reward = float("nan")


class FailsOnce(Identity):
    """Raises once in the folder in which it is played; whoever comes later plays on."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if _first_time("raised"):
            raise RuntimeError("the emulator is on fire")
        return super().step(action)


class HangsOnce(Identity):
    """Never returns from its 30th step, once in the folder in which it is played."""

    steps = 0

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.steps >= 30 and _first_time("hung"):
            time.sleep(10_000)
        return super().step(action)


class KillsItself(Identity):
    """Takes its process with it in its third step: in the middle of a rollout, a segment in hand."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._t == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class SlowToMake(Identity):
    """Takes a minute to make where there is a file ``slow``."""

    def __init__(self) -> None:
        if Path("slow").exists():
            time.sleep(60)


def _first_time(name: str) -> bool:
    try:
        Path(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class Continuous(TerminalReward):
    """Actions that are not supported."""

    action_space = Box(-1.0, 1.0, (1,), np.float32)  # type: ignore[assignment]


for _name in (
    "TerminalReward", "Drawn", "OnlyTruncation", "Identity", "ImageIdentity", "Raises", "NanState", "WrongShape",
    "WrongDtype", "OutOfRange", "NanReward", "FailsOnce", "HangsOnce", "KillsItself", "SlowToMake", "Continuous",
):  # fmt: skip
    gymnasium.register(f"{_name}-v0", entry_point=f"{__name__}:{_name}")
