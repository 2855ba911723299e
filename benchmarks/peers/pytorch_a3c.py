"""Says how many agent steps a second the workers of ikostrikov's pytorch-a3c take, on ga3c's game and network.

What is measured is its own ``train.train`` and ``my_optim.SharedAdam``, started as its ``main.py`` starts them, less
the process that tests. Its ``envs`` and ``model``, which want an older Gym and play with an LSTM on 42x42 pixels, are
replaced: by EnvPool's game with ga3c's preprocessing, one thread a worker, and by ga3c's network.

Runs with the interpreter of the benchmarks, so that torch and EnvPool are the same for both, and prints one JSON line.
"""

import argparse
import json
import os
import sys
import time
import warnings
from types import ModuleType, SimpleNamespace
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # as its main.py does, before torch is imported

import numpy as np
import torch
import torch.multiprocessing as mp
from numpy.typing import NDArray
from torch import Tensor, nn

from ga3c.envs import EnvConfig, VectorEnv, env_spec, make_env
from ga3c.networks import build_network

_WINDOW_S = 4.0  # as ga3c's


class Env:
    """One game with the interface of the Gym that pytorch-a3c was written for."""

    def __init__(self, env_id: str) -> None:
        spec = env_spec(EnvConfig(env_id))
        self._env_id = env_id
        self._env: VectorEnv | None = None
        self._state: NDArray[Any] | None = None
        self.observation_space = SimpleNamespace(shape=spec.observation_shape)
        self.action_space = SimpleNamespace(n=spec.num_actions)

    def seed(self, seed: int) -> None:
        """Makes the game: EnvPool takes its seed then."""
        self._env = make_env(EnvConfig(self._env_id), [seed])
        self._state = self._env.reset()[0]

    def reset(self) -> NDArray[Any]:
        """EnvPool resets at the step after an episode's end."""
        assert self._state is not None
        return self._state

    def step(self, action: NDArray[np.int64]) -> tuple[NDArray[Any], float, bool, dict[str, Any]]:
        """One step; an episode's end is passed over together with the step that resets."""
        assert self._env is not None
        step = self._env.step(action.reshape(1))
        done = bool(step.terminated[0] or step.truncated[0])
        if done:
            self._state = self._env.step(action.reshape(1)).states[0]
        return step.states[0], float(step.rewards[0]), done, {}


class ActorCritic(nn.Module):
    """ga3c's network with the interface of pytorch-a3c's; the LSTM's states pass through."""

    network = "small"

    def __init__(self, num_inputs: int, action_space: Any) -> None:
        super().__init__()
        self.inner = build_network(self.network, (num_inputs, 84, 84), action_space.n, "orthogonal")

    def forward(self, inputs: tuple[Tensor, Any]) -> tuple[Tensor, Tensor, Any]:
        """([1, 4, 84, 84], (hx, cx)) -> value [1, 1], logits [1, A], (hx, cx)."""
        states, recurrent = inputs
        logits, values = self.inner(states)
        return values.unsqueeze(1), logits, recurrent


def main() -> None:
    """Measures and prints."""
    options = _parse()
    warnings.filterwarnings("ignore")  # its optimiser uses overloads that torch has deprecated
    ActorCritic.network = options.network
    sys.path.insert(0, options.source)
    sys.modules["envs"], sys.modules["model"] = _module("envs", Env), _module("model", ActorCritic)
    import my_optim
    from train import train

    torch.manual_seed(1)
    env = Env(options.env)
    shared_model = ActorCritic(env.observation_space.shape[0], env.action_space)
    shared_model.share_memory()
    optimiser = my_optim.SharedAdam(shared_model.parameters(), lr=1e-4)
    optimiser.share_memory()
    counter, lock = mp.Value("i", 0), mp.Lock()
    its_options = argparse.Namespace(
        env_name=options.env,
        seed=1,
        lr=1e-4,
        gamma=0.99,
        gae_lambda=1.0,
        entropy_coef=0.01,
        value_loss_coef=0.5,
        max_grad_norm=50,
        num_steps=options.t_max,
        max_episode_length=1_000_000,
    )
    workers = [
        mp.Process(target=train, args=(rank, its_options, shared_model, counter, lock, optimiser), daemon=True)
        for rank in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    while not counter.value and all(worker.is_alive() for worker in workers):
        time.sleep(0.05)
    windows = _windows(counter, options.warm_up_s, options.seconds)
    alive = all(worker.is_alive() for worker in workers)
    for worker in workers:
        worker.kill()
    if not alive:
        sys.exit("a worker of pytorch-a3c has died")
    print(json.dumps({"parameters": sum(p.numel() for p in shared_model.parameters()), "windows": windows}))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, help="a checkout of pytorch-a3c")
    parser.add_argument("--env", default="Pong-v5")
    parser.add_argument("--network", default="small")
    parser.add_argument("--t-max", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--warm-up-s", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=12.0)
    return parser.parse_args()


def _module(name: str, content: type) -> ModuleType:
    """A stand-in for one of its modules, with what it imports from there."""
    module = ModuleType(name)
    vars(module)["create_atari_env" if name == "envs" else content.__name__] = content
    return module


def _windows(counter: Any, warm_up_s: float, seconds: float) -> list[dict[str, float]]:
    """Steps a second of all workers, window by window, from ``warm_up_s`` from now on."""
    time.sleep(warm_up_s)
    found = []
    for _ in range(max(1, round(seconds / _WINDOW_S))):
        began, first = time.perf_counter(), counter.value
        time.sleep(_WINDOW_S)
        took, steps = time.perf_counter() - began, counter.value - first
        found.append({"seconds": took, "steps_per_s": steps / took})
    return found


if __name__ == "__main__":
    main()
