"""Says on how many agent steps a second Stable-Baselines3's A2C trains.

It is set up as its documentation says, with ``make_atari_env``, and with A2C's default hyper-parameters but for n_steps
and the network. Processes for the environments, or none, are an option; torch's default number of threads and a single
one are measured by turns in one run, and the reader takes the better.

Runs in the environment that ``peer.py`` makes, and prints one JSON line.
"""

import argparse
import json
import multiprocessing
import time
from importlib.metadata import version
from itertools import cycle
from typing import Any

import ale_py
import gymnasium
import torch
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack
from torch import Tensor, nn

gymnasium.register_envs(ale_py)

_FRAME_STACK = 4
_WINDOW_S = 4.0  # as ga3c's
_SETTLE_S = 0.5  # after the number of threads has changed
_FOREVER = 10**12  # steps
_WORKERS: dict[str, type[DummyVecEnv] | type[SubprocVecEnv]] = {"subproc": SubprocVecEnv, "dummy": DummyVecEnv}
_PACKAGES = ("stable-baselines3", "torch", "gymnasium", "ale-py", "opencv-python-headless", "numpy")

# Channels, kernel and stride of each convolution, and the dense layer: ga3c's networks of these names.
_NETWORKS = {
    "small": (((16, 8, 4), (32, 4, 2)), 256),
    "nature": (((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512),
}


class Trunk(BaseFeaturesExtractor):
    """Convolutions and a dense layer, each followed by ReLU; SB3's ``NatureCNN`` with another shape."""

    def __init__(self, observation_space: gymnasium.spaces.Box, network: str) -> None:
        convs, dense = _NETWORKS[network]
        super().__init__(observation_space, dense)
        channels, height, width = observation_space.shape
        layers: list[nn.Module] = []
        for outputs, kernel, stride in convs:
            layers += [nn.Conv2d(channels, outputs, kernel, stride), nn.ReLU()]
            channels = outputs
            height, width = ((side - kernel) // stride + 1 for side in (height, width))
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, dense), nn.ReLU())

    def forward(self, states: Tensor) -> Tensor:
        """[B, 4, 84, 84] float in 0..1 -> [B, dense]."""
        features: Tensor = self.layers(states)
        return features


class Windows(BaseCallback):
    """Times windows of whole rollouts and updates, with one number of torch threads after the other.

    Attributes:
      thread_counts: in the order in which they take turns.
      closed: one for each window: threads, seconds, steps_per_s.
    """

    def __init__(self, thread_counts: list[int], warm_up_s: float, seconds: float) -> None:
        """``seconds`` are measured of each number of threads."""
        super().__init__()
        self.thread_counts = thread_counts
        self.closed: list[dict[str, float]] = []
        self._wanted = len(thread_counts) * max(1, round(seconds / _WINDOW_S))
        self._counts = cycle(thread_counts)
        self._opens_at = time.perf_counter() + warm_up_s
        self._opened: tuple[float, int] | None = None  # when, at how many steps
        self._use_next_count()

    def _use_next_count(self) -> None:
        self._threads = next(self._counts)
        torch.set_num_threads(self._threads)

    def _on_rollout_start(self) -> None:
        now, steps = time.perf_counter(), self.model.num_timesteps
        if self._opened is None:
            if now >= self._opens_at:
                self._opened = now, steps
            return
        began, first = self._opened
        if now - began >= _WINDOW_S:
            rate = (steps - first) / (now - began)
            self.closed.append({"threads": self._threads, "seconds": now - began, "steps_per_s": rate})
            self._use_next_count()
            self._opened, self._opens_at = None, now + _SETTLE_S

    def _on_step(self) -> bool:
        return len(self.closed) < self._wanted


def main() -> None:
    """Measures and prints."""
    options = _parse()
    default_threads = torch.get_num_threads()
    env = _make_env(options)
    model = _make_model(options, env)
    windows = Windows(sorted({1, default_threads}), options.warm_up_s, options.seconds)
    try:
        model.learn(_FOREVER, callback=windows)
    finally:
        env.close()
    answer = {
        "parameters": sum(p.numel() for p in model.policy.parameters()),
        "device": str(model.device),
        "default_threads": default_threads,
        "versions": {package: version(package) for package in _PACKAGES},
        "runs": [_run(options.vec, threads, windows.closed) for threads in windows.thread_counts],
    }
    print(json.dumps(answer))


def _run(vec: str, threads: int, windows: list[dict[str, float]]) -> dict[str, Any]:
    """What was measured with one number of torch threads. Each step is predicted once and trained on once."""
    return {
        "system": f"sb3 {vec}, {threads} torch thread{'s' if threads > 1 else ''}",
        "threads": threads,
        "windows": [
            {"seconds": round(w["seconds"], 3), "pps": w["steps_per_s"], "training_samples_per_s": w["steps_per_s"]}
            for w in windows
            if w["threads"] == threads
        ],
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="Pong-v5")
    parser.add_argument("--network", choices=_NETWORKS, default="small")
    parser.add_argument("--t-max", type=int, default=5)
    parser.add_argument("--envs", type=int, default=32)
    parser.add_argument("--vec", choices=_WORKERS, default="subproc")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--warm-up-s", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    return parser.parse_args()


def _make_env(options: argparse.Namespace) -> VecEnv:
    """SB3's own Atari preprocessing: no-ops to 30, frame skip 4, FIRE, grey 84x84, clipped rewards; then 4 frames."""
    # The processes' common parent imports once what each would otherwise import for itself.
    multiprocessing.set_forkserver_preload([__name__, "stable_baselines3.common.env_util", "ale_py"])
    env = make_atari_env(
        f"ALE/{options.env}",
        n_envs=options.envs,
        seed=options.seed,
        env_kwargs={"frameskip": 1, "repeat_action_probability": 0.0, "max_num_frames_per_episode": 108_000},
        wrapper_kwargs={"terminal_on_life_loss": False},
        vec_env_cls=_WORKERS[options.vec],
    )
    return VecFrameStack(env, _FRAME_STACK)


def _make_model(options: argparse.Namespace, env: VecEnv) -> A2C:
    policy: dict[str, Any] = {
        "features_extractor_class": Trunk,
        "features_extractor_kwargs": {"network": options.network},
        "net_arch": [],  # both heads sit on the trunk, as they do by default with NatureCNN
    }
    model = A2C("CnnPolicy", env, n_steps=options.t_max, policy_kwargs=policy, seed=options.seed, device=options.device)
    model.set_logger(Logger(None, []))  # its own would leave an empty folder behind
    return model


if __name__ == "__main__":
    main()
