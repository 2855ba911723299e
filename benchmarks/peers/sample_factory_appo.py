"""Says on how many agent steps a second Sample Factory's APPO trains, with one gradient pass a sample.

It is set up as its example on EnvPool is (``sf_examples.envpool``), but for one epoch, and for what
ga3c does otherwise: no episode ends with a life, and states are divided by 255 and not normalised further. The options
whose defaults differ from the examples' are those that were fastest; options that are not listed go to Sample Factory.

Runs in the environment that ``peer.py`` makes, and prints one JSON line.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any

import envpool
import gymnasium
import numpy as np
from sample_factory.algo.runners.runner import AlgoObserver, Runner
from sample_factory.algo.utils.misc import LEARNER_ENV_STEPS, SAMPLES_COLLECTED, ExperimentStatus
from sample_factory.envs.env_utils import register_env
from sample_factory.model.actor_critic import create_actor_critic
from sample_factory.train import make_runner
from sf_examples.envpool.atari.train_envpool_atari import parse_atari_args

_WINDOW_S = 4.0  # as ga3c's
_NEVER = "1000000000"
_PACKAGES = ("sample-factory", "torch", "gymnasium", "envpool", "opencv-python", "numpy")

# Sample Factory's names of the convolutions, and the dense layer: ga3c's networks of these names.
_NETWORKS = {"small": ("convnet_impala", 256), "nature": ("convnet_atari", 512)}


class Games(gymnasium.Wrapper):
    """EnvPool's games, of which one that has ended starts anew at once, as Sample Factory's own wrapper has it.

    That one resets at every step, whether a game has ended or not, and keeps statistics besides, which costs time.
    """

    def __init__(self, env: gymnasium.Env, num_agents: int) -> None:
        super().__init__(env)
        self.num_agents = num_agents

    def reset(self, **_: Any) -> tuple[np.ndarray, dict]:
        return self.env.reset()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        states, rewards, terminated, truncated, _ = self.env.step(action)
        ended = np.flatnonzero(terminated | truncated)
        if ended.size:
            first, info = self.env.reset(ended)
            states[info["env_id"]] = first
        return states, rewards, terminated, truncated, {}

    def close(self) -> None:
        """EnvPool's own needs a later Gymnasium than Sample Factory takes; the games end with their process."""


def make_envpool(name: str, cfg: Any, env_config: Any = None, render_mode: str | None = None) -> gymnasium.Env:
    env = envpool.make_gymnasium(
        name,
        num_envs=cfg.env_agents,
        num_threads=max(1, len(os.sched_getaffinity(0)) // cfg.num_workers),
        seed=cfg.seed + 1000 * (env_config.env_id if env_config else 0),
        noop_max=30,
        use_fire_reset=True,
        reward_clip=True,
        episodic_life=False,
        frame_skip=cfg.env_frameskip,
        stack_num=cfg.env_framestack,
        repeat_action_probability=0.0,
        max_episode_steps=27_000,
    )
    return Games(env, cfg.env_agents)


class Counters(AlgoObserver):
    """Keeps what the runner counts, with the time, and ends the run when all windows are full."""

    def __init__(self, warm_up_s: float, seconds: float) -> None:
        self._edges = warm_up_s + _WINDOW_S * np.arange(max(1, round(seconds / _WINDOW_S)) + 1)
        self._began: float | None = None
        self._counted: dict[str, list[tuple[float, int]]] = {SAMPLES_COLLECTED: [], LEARNER_ENV_STEPS: []}

    def on_init(self, runner: Runner) -> None:
        # Those that are there already count first.
        runner.policy_msg_handlers[SAMPLES_COLLECTED].append(self._note(SAMPLES_COLLECTED))
        runner.policy_msg_handlers[LEARNER_ENV_STEPS].append(self._note(LEARNER_ENV_STEPS))

    def _note(self, name: str) -> Any:
        def handle(runner: Runner, _message: dict, policy: int) -> None:
            count = (runner.samples_collected if name == SAMPLES_COLLECTED else runner.env_steps)[policy]
            if count:
                now = time.perf_counter()
                self._began = self._began or now
                self._counted[name].append((now - self._began, count))

        return handle

    def on_training_step(self, runner: Runner, training_iteration_since_resume: int) -> None:
        if all(counted and counted[-1][0] > self._edges[-1] for counted in self._counted.values()):
            runner.cfg.train_for_env_steps = 0  # reached, as it finds next

    def windows(self) -> list[dict[str, float]]:
        predicted, trained = (
            np.diff(np.interp(self._edges, *np.array(counted, float).T)) / _WINDOW_S
            for counted in self._counted.values()
        )
        return [
            {"seconds": _WINDOW_S, "pps": round(pps, 2), "training_samples_per_s": round(samples, 2)}
            for pps, samples in zip(predicted.tolist(), trained.tolist(), strict=True)
        ]


def main() -> None:
    """Measures and prints."""
    options, theirs = _parse()
    with tempfile.TemporaryDirectory(prefix="sample-factory-") as folder:
        os.environ["TMPDIR"] = folder  # Sample Factory and its processes leave files there
        tempfile.tempdir = folder
        register_env(options.env, make_envpool)
        arguments = _arguments(options, folder) + theirs
        _, runner = make_runner(parse_atari_args(arguments))
        counters = Counters(options.warm_up_s, options.seconds)
        runner.register_observer(counters)
        if runner.init() != ExperimentStatus.SUCCESS or runner.run() != ExperimentStatus.SUCCESS:
            sys.exit("Sample Factory failed")
        model = create_actor_critic(runner.cfg, runner.env_info.obs_space, runner.env_info.action_space)
    answer = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": runner.cfg.device,
        "versions": {package: version(package) for package in _PACKAGES},
        "arguments": [word for word in arguments if folder not in word],
        "runs": [
            {
                "system": f"sample-factory {options.vec}, {options.workers} x {options.envs // options.workers}",
                "windows": counters.windows(),
            }
        ],
    }
    print(json.dumps(answer))


def _parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--env", default="Pong-v5")
    parser.add_argument("--network", choices=_NETWORKS, default="nature")
    parser.add_argument("--t-max", type=int, default=20)
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--vec", choices=("async", "sync", "serial"), default="async", help="serial: in one process")
    parser.add_argument("--workers", type=int, help="processes with environments; default: about one a core")
    parser.add_argument("--splits", type=int, default=1, help="groups of a worker's environments, stepped by turns")
    parser.add_argument("--batch", type=int, help="samples of an update; default: rollouts of a quarter of --envs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--warm-up-s", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    options, theirs = parser.parse_known_args()
    cores = 1 if options.vec == "serial" else len(os.sched_getaffinity(0))
    # Powers of two, and a quarter of the environments, since a batch has to hold whole rollouts of whole groups.
    options.workers = options.workers or max(n for n in (1, 2, 4, 8, 16) if n <= cores and not options.envs % n)
    options.batch = options.batch or options.t_max * (options.envs if options.envs % 4 else options.envs // 4)
    return options, theirs


def _arguments(options: argparse.Namespace, folder: str) -> list[str]:
    """Sample Factory's, for one run whose files go to ``folder``."""
    convolutions, dense = _NETWORKS[options.network]
    groups = options.workers * options.splits
    pairs = {
        "env": options.env,
        "train_dir": folder,
        "experiment": "run",
        "seed": options.seed,
        "device": "cpu" if options.device == "cpu" else "gpu",
        "encoder_conv_architecture": convolutions,
        "encoder_conv_mlp_layers": dense,
        "use_rnn": False,
        "num_epochs": 1,
        # Without async_rl it wants to train on one rollout of every environment at a time.
        "num_batches_per_epoch": 1 if options.vec == "async" else max(1, options.envs * options.t_max // options.batch),
        "batch_size": options.batch,
        "rollout": options.t_max,
        "async_rl": options.vec == "async",
        "serial_mode": options.vec == "serial",
        "batched_sampling": True,
        "num_workers": options.workers,
        "worker_num_splits": options.splits,
        # EnvPool's games are one environment with many agents.
        "num_envs_per_worker": options.splits,
        "env_agents": options.envs // groups,
        "normalize_input": False,
        "normalize_returns": False,
        "summaries_use_frameskip": False,  # count agent steps, not frames
        "save_every_sec": _NEVER,
        "save_best_after": _NEVER,
        "train_for_env_steps": _NEVER,
    }
    return [f"--{name}={value}" for name, value in pairs.items()]


if __name__ == "__main__":
    main()
