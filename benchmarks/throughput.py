"""Says how many predictions (PPS) and training samples a second a warm GA3C run makes, and how many a peer makes.

Options that are not listed here, and the environment, go to ``ga3c train``, which runs as a user runs it; what it
writes to metrics.jsonl is what counts. A peer plays the same game with the same network, rollouts and environments,
turn by turn with GA3C. After each of its windows a run of GA3C's stands still for the machine's own limit to be
measured (``limits.py``); the *efficiency* is the share of it that the run reached.
"""

import math
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from limits import Job, Limit, Machine, cheapest, measure_limit, measuring
from peer import peer_python, run_peer
from record import RESULTS, BenchmarkError, append, facts, prepare, run_benchmark
from training import WINDOW_S, Run, in_words, say, series, train_run

from ga3c.config import TrainConfig
from ga3c.envs import EnvConfig, env_spec
from ga3c.errors import UsageError
from ga3c.resolve import read_options, resolve

_GRID_S = 1.0  # of each measurement of the limit
_TURN_S, _TURN_WARM_UP_S = 0.5, 0.15  # of each of those that are made while a run stands still, for well under a second
_LONGEST_TURN_S = 1.0  # else the machine stalled; the run takes that for a suspension, and windows are left out too
_BEST = 2  # jobs of each kind that are measured again, to choose one: what was cheapest once may be a lucky one
_CHOOSING_TURNS = 6
_PEER_NETWORKS = ("small", "nature")
_PROTOCOL = ("frame_skip", "frame_stack", "noop_max", "fire_on_reset", "reward_clip", "episodic_life")


@dataclass(frozen=True)
class Peer:
    """Another library, in an environment of its own.

    Attributes:
      packages: what ``peer_python`` makes that of.
      script: in ``peers/``; all take the same options, and print the same JSON.
      vecs: ways to run its environments, of which the faster counts; the script's ``--vec``.
      defaults: options of ``ga3c train``, beside which it runs: where GA3C was fastest.
      envs: where it was fastest itself; see README.md for what was tried.
    """

    packages: str
    script: str
    vecs: tuple[str, ...]
    defaults: str
    envs: int


_PEERS = {
    "sb3": Peer(
        "sb3",
        "sb3_a2c.py",
        ("subproc", "dummy"),
        "--network small --t-max 5 --actors 2 --envs-per-actor 128 --min-training-batch 640",
        envs=128,
    ),
    "sample-factory": Peer(
        "sample_factory",
        "sample_factory_appo.py",
        ("async", "serial"),
        "--network nature --t-max 20 --actors 4 --envs-per-actor 16",
        envs=64,
    ),
}


@dataclass(frozen=True)
class Options:
    """Measures the throughput of `ga3c train`, whose environment and options may be given as well."""

    seconds: float = 30.0
    """Measured time of each run."""
    warm_up_s: float = 10.0
    """Seconds before that, from the first steps on, that do not count."""
    repeats: int = 3
    """Runs, of each system."""
    record: Path | None = None
    """JSONL file that a row is appended to; default benchmarks/results/throughput.jsonl."""
    limit: bool = True
    """Measure the machine's limit beside each run, and print what share of it was reached."""
    peer: Literal["sb3", "sample-factory"] | None = None
    """Library to compare with; its environment is made on first use. Sets t_max, the network and the environments."""
    peer_envs: int = 0
    """Environments of the peer; 0 means as many as suited it best (128; Sample Factory 64)."""
    peer_vec: str = "best"
    """How the peer runs its environments. sb3: subproc, dummy. sample-factory: async, serial. best takes the faster in
    each repeat."""


def main() -> None:
    """Entry point."""
    run_benchmark("throughput", lambda: _main(sys.argv[1:]))


def _main(arguments: list[str]) -> int:
    options, rest = tyro.cli(Options, args=arguments, prog="throughput.py", return_unknown_args=True)
    # Of an option given twice the last counts, so that these are defaults; a preset brings its own.
    defaults = _PEERS[options.peer].defaults if options.peer and not any(a.startswith("--preset") for a in rest) else ""
    train_arguments = [*defaults.split(), *rest]
    _check(options, train_arguments)
    path = options.record or RESULTS / "throughput.jsonl"
    prepare(path)
    if options.peer:
        peer_python(_PEERS[options.peer].packages)
    row = {"measured": "throughput", **facts(), "train_arguments": train_arguments}
    _warn_if_busy(row)
    row |= _measure(options, train_arguments)
    append(path, row)
    print(f"appended to {path}")
    return 0


def _check(options: Options, train_arguments: list[str]) -> None:
    """Finds what is wrong before anything runs; the rest of it ``ga3c train`` says itself.

    Raises:
      UsageError: with the first thing that is.
    """
    for name, bound in (("seconds", WINDOW_S), ("warm_up_s", 0), ("repeats", 1), ("peer_envs", 0)):
        value = getattr(options, name)
        if not bound <= value < math.inf:
            raise UsageError(f"--{name.replace('_', '-')}: got {value:g}; at least {bound:g} would be right")
    said = tyro.cli(TrainConfig, args=train_arguments, prog="ga3c train")
    for name in ("out", "resume", "minutes", "total_steps"):
        if getattr(said, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is this benchmark's own to choose; leave it out")
    game = env_spec(said.env_config()).game
    if options.peer:
        vecs = (*_PEERS[options.peer].vecs, "best")
        if options.peer_vec not in vecs:
            raise UsageError(f"--peer-vec: got {options.peer_vec!r}; {', '.join(vecs)} would be right")
        _check_peer(options.peer, said, game)


def _check_peer(peer: str, said: TrainConfig, game: str | None) -> None:
    """Refuses what the peer's script does not play alike."""
    if game is None:
        raise UsageError(f"--peer {peer} plays Atari games only, got {said.env!r}; Pong-v5 would be right")
    if said.network not in _PEER_NETWORKS:
        raise UsageError(f"--peer {peer} has networks {' and '.join(_PEER_NETWORKS)}, got {said.network!r}")
    for name in _PROTOCOL:
        got, right = getattr(said, name), getattr(EnvConfig, name)
        if got != right:
            raise UsageError(f"--peer {peer} plays with --{name.replace('_', '-')} {right} only, got {got}")
    if said.sticky_actions or (said.sticky_actions is None and said.env.startswith("ALE/")):
        raise UsageError(f"--peer {peer} plays without sticky actions; --sticky-actions 0 would be right")


def _warn_if_busy(row: Run) -> None:
    load, cores = row["load_average_before"], row["machine"]["cores"]
    if load > cores / 4:
        print(f"the machine is busy (load {load:g} on {cores} cores): the figures are too low, and spread", flush=True)


def _measure(options: Options, train_arguments: list[str]) -> Run:
    """All repeats, GA3C and the peer by turns."""
    repeats: list[list[Run]] = []
    ratios: list[float] = []
    settings: Run = {}
    with _limits_of(train_arguments) if options.limit else nullcontext() as limits:
        for number in range(1, options.repeats + 1):
            between = limits.measure_next if limits is not None else None
            ours, settings = train_run(train_arguments, options.warm_up_s, options.seconds, between=between)
            say(number, ours)
            if limits is not None:
                limits.compare(number, ours)
            theirs = _peer_runs(options, settings)
            for run in theirs:
                say(number, run)
            repeats.append([ours, *theirs])
            if theirs:
                ratios.append(ours["pps"]["median"] / max(run["pps"]["median"] for run in theirs))
                print(f"repeat {number}  ga3c / {options.peer} at its best: {ratios[-1]:.2f}", flush=True)
    print("\n".join(_summary(repeats, ratios)))
    row = {"options": _options_row(options), "settings": settings, "repeats": repeats, "ratios": ratios}
    if limits is not None:
        print(limits.in_words())
        row |= {"limits": [limit.to_json() for limit in limits.found], "efficiency": limits.efficiency}
    return row


class _Limits:
    """The machine's limit, measured by turns with the runs.

    One job of each kind is chosen before the first run. To take the cheapest of several beside each run would be to
    take the luckiest: on a noisy machine bare EnvPool came to 0.95 of itself so.

    Attributes:
      found: that of the whole grid, and then, of what was chosen of it, one for each run.
      efficiency: of each run, beside its limit.
    """

    def __init__(self, grid: Limit, machine: Machine) -> None:
        """``machine`` measures the best of ``grid`` again."""
        self.found = [grid]
        self.efficiency: list[float] = []
        self._machine = machine
        best = [job for kind in grid.best for job in cheapest(grid.measured, kind)[:_BEST]]
        for job in best:  # which takes a while once
            machine.seconds_a_step(job, _TURN_S)
        again: dict[Job, list[float]] = {job: [] for job in best}
        for _ in range(_CHOOSING_TURNS):
            for job, costs in again.items():
                costs.append(machine.seconds_a_step(job, _TURN_S, _TURN_WARM_UP_S))
        medians = {job: statistics.median(costs) for job, costs in again.items()}
        self._jobs = [cheapest(medians, kind)[0] for kind in grid.best]
        self._costs: dict[Job, list[float]] = {job: [] for job in self._jobs}
        self._turn = 0

    def measure_next(self, longest_s: float = _LONGEST_TURN_S) -> None:
        """Measures one of the jobs, in less than a second. What takes longer than ``longest_s`` does not count."""
        job = self._jobs[self._turn % len(self._jobs)]
        self._turn += 1
        began = time.monotonic()
        cost = self._machine.seconds_a_step(job, _TURN_S, _TURN_WARM_UP_S)
        if time.monotonic() - began < longest_s:
            self._costs[job].append(cost)

    def compare(self, number: int, run: Run) -> None:
        """Says what share of the limit a run reached, by what was measured since the last one."""
        while not all(self._costs.values()):
            self.measure_next(math.inf)  # a short run left no time for all
        limit = self._machine.limit({job: statistics.median(costs) for job, costs in self._costs.items()})
        for costs in self._costs.values():
            costs.clear()
        self.found.append(limit)
        self.efficiency.append(round(run["pps"]["median"] / limit.steps_per_s, 4))
        print(f"repeat {number}  {limit.in_words()}; efficiency {self.efficiency[-1]:.2f}", flush=True)

    def in_words(self) -> str:
        """The efficiency of all runs."""
        listed = ", ".join(f"{share:.2f}" for share in self.efficiency)
        return f"  efficiency: median {statistics.median(self.efficiency):.2f} of {listed}"


@contextmanager
def _limits_of(train_arguments: list[str]) -> Iterator[_Limits]:
    config, spec = resolve(read_options(train_arguments, "ga3c train"))
    grid = measure_limit(config, spec, _GRID_S)
    print(grid.in_words(), flush=True)
    with measuring(config, spec) as machine:
        yield _Limits(grid, machine)


def _options_row(options: Options) -> Run:
    return {
        name: getattr(options, name) for name in ("seconds", "warm_up_s", "repeats", "peer", "peer_envs", "peer_vec")
    }


def _peer_runs(options: Options, settings: Run) -> list[Run]:
    """Runs the peer in each way that was asked for, as the GA3C run of ``settings`` was run."""
    if options.peer is None:
        return []
    peer = _PEERS[options.peer]
    vecs = peer.vecs if options.peer_vec == "best" else (options.peer_vec,)
    return [run for vec in vecs for run in _peer_run(peer, options, settings, vec)]


def _peer_run(peer: Peer, options: Options, settings: Run, vec: str) -> list[Run]:
    """Returns the series of one run of the peer's script, which may measure several settings by turns.

    Raises:
      BenchmarkError: its network has another size than ours.
    """
    config = settings["config"]
    arguments = {
        "--env": config["env"].removeprefix("ALE/"),
        "--network": config["network"],
        "--t-max": config["t_max"],
        "--envs": options.peer_envs or peer.envs,
        "--seed": config["seed"],
        "--device": settings["device"],
        "--vec": vec,
        "--warm-up-s": options.warm_up_s,
        "--seconds": options.seconds,
    }
    words = [str(word) for pair in arguments.items() for word in pair]
    answer = run_peer(peer_python(peer.packages), peer.script, words)
    if answer["parameters"] != settings["parameters"]:
        raise BenchmarkError(f"networks differ: {answer['parameters']} parameters, ga3c's {settings['parameters']}")
    runs = answer.pop("runs")
    return [series(run.pop("system"), run.pop("windows")) | {"vec": vec, **run, **answer} for run in runs]


def _summary(repeats: list[list[Run]], ratios: list[float]) -> list[str]:
    """A line for each system, over the windows of all repeats, and one for the ratio."""
    lines = [f"all windows of {len(repeats)} repeat{'s' if len(repeats) > 1 else ''}:"]
    for runs in zip(*repeats, strict=True):
        windows = [window for run in runs for window in run["windows"]]
        whole = series(runs[0]["system"], windows)
        samples = in_words(whole["training_samples_per_s"])
        lines.append(f"  {whole['system']}: PPS {in_words(whole['pps'])}, samples/s {samples}")
    if ratios:
        lines.append(f"  ratio: median {statistics.median(ratios):.2f} of {', '.join(f'{r:.2f}' for r in ratios)}")
    return lines


if __name__ == "__main__":
    main()
