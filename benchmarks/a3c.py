"""Says how mode a3c scales with its workers, beside bare environments and beside a widely used A3C in PyTorch.

Each repeat measures every number of workers of every system, by turns, so that all meet the same machine:

* ``envs``: processes that step one EnvPool game each, on a core each as the workers are, with actions at random: the
  most that workers could reach;
* ``a3c``: ``ga3c train --mode a3c``, in the precision that it chooses and in fp32;
* ``pytorch-a3c``: the training loop and optimiser of ikostrikov/pytorch-a3c on the same game and network, in fp32.

Efficiency of scaling is the speed-up from the fewest to the most workers over that of the bare environments.
"""

import multiprocessing
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from peer import peer_source, run_peer
from record import RESULTS, BenchmarkError, append, facts, prepare, run_benchmark, spread
from training import WINDOW_S, Run, in_words, train_run

from ga3c.envs import EnvConfig, env_spec, make_env
from ga3c.errors import UsageError
from ga3c.worker import stay_on_one_core

_START_TIMEOUT_S = 60.0
_ENVS, _OURS, _OURS_FP32, _PEER = "envs", "a3c", "a3c-fp32", "pytorch-a3c"
_SYSTEMS = (_ENVS, _OURS, _OURS_FP32, _PEER)


@dataclass(frozen=True)
class Options:
    """Measures how mode a3c scales, and how it compares."""

    workers: list[int] = field(default_factory=lambda: [1, 2])
    """Numbers of workers."""
    systems: list[str] = field(default_factory=lambda: list(_SYSTEMS))
    """Which to measure, of envs, a3c, a3c-fp32 and pytorch-a3c."""
    env: str = "Pong-v5"
    """EnvPool's id of an Atari game."""
    network: str = "small"
    """As in `ga3c train`."""
    t_max: int = 5
    """Steps of a rollout."""
    seconds: float = 12.0
    """Measured time of each run."""
    warm_up_s: float = 5.0
    """Seconds before that which do not count."""
    repeats: int = 4
    """Runs of each system with each number of workers."""
    record: Path = RESULTS / "a3c.jsonl"
    """JSONL file that a row is appended to."""


def main() -> None:
    """Entry point."""
    run_benchmark("a3c", lambda: _main(tyro.cli(Options, prog="a3c.py")))


def _main(options: Options) -> None:
    _check(options)
    prepare(options.record)
    if _PEER in options.systems:
        peer_source(_PEER)
    row = {"measured": "a3c", **facts(), "options": {**vars(options), "record": None}}
    runs: list[Run] = []
    for repeat in range(1, options.repeats + 1):
        for system in options.systems:
            for workers in options.workers:
                rates = _measure(options, system, workers)
                runs.append({"repeat": repeat, "system": system, "workers": workers, "steps_per_s": rates})
                print(f"repeat {repeat}  {system}, {workers} workers: {in_words(spread(rates))} steps/s", flush=True)
    summary = _summary(options, runs)
    append(options.record, {**row, "runs": runs, "summary": summary})
    print("\n".join(f"{name}: {_listed(ratios)}" for name, ratios in summary.items()))
    print(f"appended to {options.record}")


def _check(options: Options) -> None:
    """Finds what is wrong before anything runs.

    Raises:
      UsageError: with the first thing that is.
    """
    if len(set(options.workers)) < max(2, len(options.workers)) or min(options.workers) < 1:
        raise UsageError(f"--workers: got {options.workers}; two or more different numbers from 1 on would be right")
    if len(set(options.systems)) < len(options.systems):
        raise UsageError(f"--systems: got {' '.join(options.systems)}; each of them once would be right")
    for system in options.systems:
        if system not in _SYSTEMS:
            raise UsageError(f"--systems: got {system!r}; {', '.join(_SYSTEMS)} would be right")
    if env_spec(EnvConfig(options.env, backend="envpool")).game is None:
        raise UsageError(f"--env: got {options.env!r}; one of EnvPool's Atari games, as Pong-v5, would be right")
    if options.repeats < 1 or options.seconds < WINDOW_S:
        raise UsageError(f"--repeats from 1 and --seconds from {WINDOW_S:g} would be right")


def _measure(options: Options, system: str, workers: int) -> list[float]:
    """Steps a second in each window of one run."""
    if system == _ENVS:
        return _bare_environments(options, workers)
    if system == _PEER:
        return _peer(options, workers)
    arguments = [options.env, "--mode", "a3c", "--actors", str(workers), "--t-max", str(options.t_max)]
    arguments += ["--network", options.network, *(["--precision", "fp32"] if system == _OURS_FP32 else [])]
    run, _ = train_run(arguments, options.warm_up_s, options.seconds)
    return [window["pps"] for window in run["windows"]]


def _peer(options: Options, workers: int) -> list[float]:
    arguments = {
        "--source": peer_source(_PEER),
        "--env": options.env,
        "--network": options.network,
        "--t-max": options.t_max,
        "--workers": workers,
        "--warm-up-s": options.warm_up_s,
        "--seconds": options.seconds,
    }
    words = [str(word) for pair in arguments.items() for word in pair]
    answer = run_peer(Path(sys.executable), "pytorch_a3c.py", words)
    return [window["steps_per_s"] for window in answer["windows"]]


def _bare_environments(options: Options, workers: int) -> list[float]:
    """As many processes as workers, which only step."""
    context = multiprocessing.get_context("spawn")
    steps = context.Array("q", workers, lock=False)  # each writes its own
    stepping = [context.Process(target=_step, args=(options.env, seed, steps), daemon=True) for seed in range(workers)]
    for process in stepping:
        process.start()
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not all(steps):
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the environments have not started within {_START_TIMEOUT_S:g} s")
            time.sleep(0.05)
        time.sleep(options.warm_up_s)
        rates = []
        for _ in range(max(1, round(options.seconds / WINDOW_S))):
            began, first = time.perf_counter(), sum(steps)
            time.sleep(WINDOW_S)
            rates.append((sum(steps) - first) / (time.perf_counter() - began))
        return rates
    finally:
        for process in stepping:
            process.kill()
            process.join()


def _step(env_id: str, seed: int, steps: Any) -> None:
    """Steps one game for as long as its parent lives, and counts in its own place of ``steps``."""
    stay_on_one_core(seed, len(steps))
    parent = os.getppid()
    env = make_env(EnvConfig(env_id), [seed], in_worker=True)
    env.reset()
    draw = np.random.default_rng(seed)
    actions = draw.integers(0, env_spec(EnvConfig(env_id)).num_actions, (1000, 1))
    while os.getppid() == parent:
        env.step(actions[steps[seed] % len(actions)])
        steps[seed] += 1


def _summary(options: Options, runs: list[Run]) -> dict[str, list[float]]:
    """Ratios of medians within each repeat."""
    few, many = min(options.workers), max(options.workers)

    def rate(repeat: int, system: str, workers: int) -> float:
        (run,) = (r for r in runs if (r["repeat"], r["system"], r["workers"]) == (repeat, system, workers))
        return float(statistics.median(run["steps_per_s"]))

    repeats = range(1, options.repeats + 1)
    found: dict[str, list[float]] = {}
    for system in options.systems:
        found[f"{system}: {many} workers over {few}"] = [rate(r, system, many) / rate(r, system, few) for r in repeats]
    bare = found.get(f"{_ENVS}: {many} workers over {few}", [])
    for system in options.systems if bare else []:
        if system == _ENVS:
            continue
        scaling = found[f"{system}: {many} workers over {few}"]
        found[f"{system}: efficiency of scaling"] = [s / b for s, b in zip(scaling, bare, strict=True)]
    for workers in options.workers if _PEER in options.systems else []:
        for system in {_OURS, _OURS_FP32} & set(options.systems):
            name = f"{system} over {_PEER}, {workers} workers"
            found[name] = [rate(r, system, workers) / rate(r, _PEER, workers) for r in repeats]
    return found


def _listed(ratios: list[float]) -> str:
    return f"median {statistics.median(ratios):.2f} of {', '.join(f'{ratio:.2f}' for ratio in ratios)}"


if __name__ == "__main__":
    main()
