"""Says where this machine's own limit is: what an agent step costs in environments, predictions and training.

Each cost is measured with every core busy at it, in processes that share nothing: ``cores`` seconds a second are there
to be spent, and a step needs ``c_env + c_predict + c_train`` of them, whatever the system around them. With a device
that is not the CPU the environments have the cores to themselves, and the device has predictions and training; with one
that only waits (``--device simulated:NAME``) the environments are all there is. What a device does is taken one after
the other, though predictions and updates may overlap there: that limit is an estimate.

``throughput.py`` measures the limit by turns with its runs, and prints what share of it they reached.
"""

import dataclasses
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from record import RESULTS, BenchmarkError, append, facts, prepare, run_benchmark

from ga3c.config import TrainConfig
from ga3c.curves import is_simulated
from ga3c.envs import EnvSpec, env_seeds, make_env
from ga3c.errors import UsageError
from ga3c.resolve import read_options, resolve
from ga3c.slabs import SlabLayout

ENVS = (8, 16, 32, 64, 128)
PREDICTION_BATCHES = (16, 32, 64, 128, 256)
TRAINING_BATCHES = (80, 160, 320, 640)
DEVICE_BATCHES = {"predict": (512, 1024), "train": (1280,)}  # besides, where it is not the cores that compute
_WARM_UP_S = 0.5
_START_S = 120.0  # that processes may take to load torch


class Job(NamedTuple):
    """One measurement: K environments, or batches of ``size`` states, on ``threads`` torch threads."""

    kind: str  # "env", "predict" or "train"
    size: int
    precision: str = ""
    threads: int = 1
    layout: str = ""  # of the batch in memory
    alone: bool = False  # on one core, the others idle: told, and no part of the limit

    def __str__(self) -> str:
        if self.kind == "env":
            return f"{self.size} environments a process" + (", one process" if self.alone else "")
        return f"batches of {self.size}, {self.precision}, {self.layout}, {self.threads} threads"


@dataclass(frozen=True)
class Limit:
    """The most agent steps a second, and what it was computed from.

    Attributes:
      steps_per_s: the limit.
      cores: that were busy.
      costs_s: seconds of a core (on another device: of the device) a step, by kind, each at its cheapest.
      best: how that was measured, by kind.
      measured: seconds a step of every job.
    """

    steps_per_s: float
    cores: int
    costs_s: dict[str, float]
    best: dict[str, Job]
    measured: dict[Job, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values, in microseconds."""
        return {
            "steps_per_s": round(self.steps_per_s, 1),
            "cores": self.cores,
            "costs_us": {kind: round(1e6 * cost, 2) for kind, cost in self.costs_s.items()},
            "best": {kind: str(job) for kind, job in self.best.items()},
            "measured": [{**job._asdict(), "us_a_step": round(1e6 * s, 2)} for job, s in self.measured.items()],
        }

    def in_words(self) -> str:
        """One line."""
        costs = ", ".join(f"{kind} {1e6 * cost:.0f} us" for kind, cost in self.costs_s.items())
        return f"limit {self.steps_per_s:,.0f} steps/s on {self.cores} cores: {costs}"


@dataclass(frozen=True)
class Options:
    """Measures the limit; other options, and the environment, are those of `ga3c train`."""

    seconds: float = 1.5
    """Of each measurement."""
    record: Path = RESULTS / "limits.jsonl"
    """JSONL file that a row is appended to."""


def main() -> None:
    """Entry point."""
    run_benchmark("limits", lambda: _main(sys.argv[1:]))


def _main(arguments: list[str]) -> None:
    options, rest = tyro.cli(Options, args=arguments, prog="limits.py", return_unknown_args=True)
    config, spec = resolve(read_options(rest, "ga3c train"))
    if not 0.1 <= options.seconds <= 60:
        raise UsageError(f"--seconds: got {options.seconds:g}; 0.1 to 60 would be right")
    prepare(options.record)
    row = {"measured": "limits", **facts(), "train_arguments": rest}
    limit = measure_limit(config, spec, options.seconds)
    for job, cost in limit.measured.items():
        print(f"{job.kind:8} {job}: {1e6 * cost:.1f} us a step, {1 / cost:,.0f} a second and core")
    print(limit.in_words())
    append(options.record, {**row, "limit": limit.to_json()})
    print(f"appended to {options.record}")


def measure_limit(config: TrainConfig, spec: EnvSpec, seconds: float) -> Limit:
    """The machine's limit, from a grid of batches, precisions, layouts and threads.

    Args:
      config: says the network, the precision (``auto``: what computes fastest) and the device.
      spec: of the environment.
      seconds: of each measurement.
    """
    with measuring(config, spec) as machine:
        jobs = _grid(config, spec, machine.cores, on_cpu=machine.on_cpu)
        return machine.limit({job: machine.seconds_a_step(job, seconds) for job in jobs})


class Machine:
    """Processes, one a core, that do nothing until they are asked what a step costs.

    Attributes:
      cores: that they may use.
      on_cpu: whether the model computes on them.
    """

    def __init__(self, ends: list[Connection]) -> None:
        """``ends`` are those of processes that serve."""
        (device,) = {answer(end) for end in ends}
        self.cores = len(ends)
        self.on_cpu = device == "cpu"
        self._ends = ends

    def seconds_a_step(self, job: Job, seconds: float, warm_up_s: float = _WARM_UP_S) -> float:
        """Seconds of a core (of a device that is not the CPU) that a step of ``job`` costs, every core busy with it.

        It takes ``warm_up_s + seconds``; the first time it has to be made besides, which takes longer.
        """
        if job.kind == "env":
            alone, busy = job.alone, self._ends
        else:
            alone, busy = not self.on_cpu, self._ends[: max(1, self.cores // job.threads)]
        busy = busy[:1] if alone else busy
        for end in busy:
            end.send(job)
        for end in busy:
            answer(end)  # it is made
        begin = time.monotonic() + warm_up_s
        for end in busy:
            end.send((begin, begin + seconds))
        rate = sum(float(answer(end)) for end in busy)  # each has counted its own steps in its own seconds
        return (1 if alone else len(busy) * job.threads) / rate

    def limit(self, measured: dict[Job, float]) -> Limit:
        """The limit by what jobs were measured to cost, of which the cheapest of each kind counts."""
        kinds = sorted({job.kind for job in measured})
        best = {kind: cheapest(measured, kind)[0] for kind in kinds}
        costs = {kind: measured[best[kind]] for kind in kinds}
        on_device = 1 / (costs["predict"] + costs["train"]) if not self.on_cpu else float("inf")
        on_cores = self.cores / (sum(costs.values()) if self.on_cpu else costs["env"])
        return Limit(min(on_cores, on_device), self.cores, costs, best, measured)


@contextmanager
def measuring(config: TrainConfig, spec: EnvSpec) -> Iterator[Machine]:
    """Yields what measures; its processes end with the block."""
    with processes(_serve, config, spec) as ends:
        yield Machine(ends)


def cheapest(measured: dict[Job, float], kind: str) -> list[Job]:
    """The jobs of a kind, from the one with the least cost on."""
    return sorted((job for job in measured if job.kind == kind and not job.alone), key=lambda job: measured[job])


def _grid(config: TrainConfig, spec: EnvSpec, cores: int, *, on_cpu: bool) -> list[Job]:
    precisions = [config.precision] if config.precision != "auto" else ["bf16", "fp32" if on_cpu else "tf32"]
    threads = sorted({1, cores}) if on_cpu else [1]
    batches = {"predict": PREDICTION_BATCHES, "train": TRAINING_BATCHES}
    sizes = [(kind, n) for kind in batches for n in (*batches[kind], *(() if on_cpu else DEVICE_BATCHES[kind]))]
    jobs = [Job("env", envs) for envs in ENVS] + [Job("env", envs, alone=True) for envs in ENVS[:1]]
    if is_simulated(config.device):
        return jobs  # it takes no core
    layouts = ["contiguous"]  # as slabs are for a device that is not the CPU
    if SlabLayout.of(spec, segments=1, t_max=1, envs=1, on_cpu=on_cpu).channels_last:
        layouts = ["channels-last", "contiguous"]
    ways = [(p, t, layout) for p in precisions for t in threads for layout in layouts if t == 1 or layout == layouts[0]]
    return jobs + [Job(kind, n, *way) for kind, n in sizes for way in ways]


@contextmanager
def processes(serve: Callable[..., None], config: TrainConfig, spec: EnvSpec) -> Iterator[list[Connection]]:
    """Runs ``serve(end, config, spec, index)`` in a process a core; yields our ends. Killed after the block."""
    context = multiprocessing.get_context("spawn")
    ends: list[Connection] = []
    processes: list[Any] = []
    try:
        for index in range(len(os.sched_getaffinity(0))):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, config, spec, index), daemon=True)
            process.start()
            theirs.close()
            ends.append(ours)
            processes.append(process)
        yield ends
    finally:
        for process in processes:
            process.kill()
            process.join()


def answer(end: Connection) -> Any:
    """Raises BenchmarkError when the process has failed, or says nothing."""
    try:
        if not end.poll(_START_S):
            raise BenchmarkError(f"a measuring process has said nothing for {_START_S:g} s")
        answer = end.recv()
    except EOFError:
        raise BenchmarkError("a measuring process has ended") from None
    if isinstance(answer, Exception):
        raise BenchmarkError(f"{type(answer).__name__}: {answer}")
    return answer


def _serve(end: Connection, config: TrainConfig, spec: EnvSpec, index: int) -> None:
    """The life of a measuring process: says where it computes, then answers each job with its steps a second."""
    try:
        end.send(_device(config))
        made: dict[Job, tuple[Callable[[], Any], int]] = {}
        while True:
            job = end.recv()
            if job not in made:
                made[job] = work(config, spec, job, index)
            call, steps = made[job]
            _use_threads(job)
            call()
            end.send("ready")
            begin, until = end.recv()
            while time.monotonic() < begin:
                call()
            began, calls = time.monotonic(), 0
            while calls == 0 or time.monotonic() < until:
                call()
                calls += 1
            end.send(steps * calls / (time.monotonic() - began))
    except EOFError:
        pass
    except Exception as error:
        end.send(error)


def _use_threads(job: Job) -> None:
    """Lets the model's work have as many threads as ``job`` says."""
    if job.kind != "env":
        import torch

        torch.set_num_threads(job.threads)


def _device(config: TrainConfig) -> str:
    if is_simulated(config.device):
        return "cpu"
    from ga3c.device import resolve_device

    return resolve_device(config.device).type


def work(config: TrainConfig, spec: EnvSpec, job: Job, index: int) -> tuple[Callable[[], Any], int]:
    """What does the job once, and how many steps (samples) that is; ``index`` tells processes' environments apart."""
    return _environments(config, spec, job, index) if job.kind == "env" else _model(config, spec, job)


def _environments(config: TrainConfig, spec: EnvSpec, job: Job, index: int) -> tuple[Any, int]:
    env = make_env(config.env_config(), env_seeds(1, index, 0, job.size), in_worker=True)
    env.reset()
    draw = np.random.default_rng(index)
    actions = draw.integers(0, spec.num_actions, (256, job.size))
    step = iter(range(2**62))
    return lambda: env.step(actions[next(step) % 256]), job.size


def _model(config: TrainConfig, spec: EnvSpec, job: Job) -> tuple[Any, int]:
    import torch

    from ga3c.build import build_model
    from ga3c.device import resolve_device
    from ga3c.model import Batch

    changed: dict[str, Any] = {"precision": job.precision, "torch_threads": job.threads}
    model, _ = build_model(dataclasses.replace(config, **changed), spec)
    shape = (job.size, *spec.observation_shape)
    states = model.host_buffer(shape, spec.observation_dtype, channels_last=job.layout == "channels-last")
    states.copy_(torch.randint(0, 256, states.shape))
    if job.kind == "predict":
        return lambda: model.predict(states), job.size
    batch = Batch(
        states=states if model.on_cpu else states.to(resolve_device(config.device)),  # they stay there, as in a run
        actions=torch.arange(job.size) % spec.num_actions,
        returns=torch.zeros(job.size),
        live=torch.ones(job.size, dtype=torch.bool),
        versions=np.zeros(job.size, np.int64),
    )
    return lambda: model.update(batch, 1e-6), job.size


if __name__ == "__main__":
    main()
