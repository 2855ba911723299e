"""A fixed piece of a run's own work, done by turns with it: says how fast the machine is at that moment.

Other tenants make a shared machine faster and slower within the hour. A run that ages falls behind this work; one on a
machine that drifts does not.
"""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from record import BenchmarkError

from ga3c.envs import env_seeds, make_env
from ga3c.resolve import read_options, resolve
from ga3c.slabs import SlabLayout

_ENVS, _STEPS, _PREDICTION_BATCH = 16, 10, 32
_SAMPLES = _ENVS * _STEPS  # all are stepped, predicted and trained on once
_START_S, _WORK_S = 120.0, 60.0  # that torch may take to load; that a piece of work may take


class Control:
    """Processes, one a core, that do nothing until they are asked."""

    def __init__(self, ends: list[Connection]) -> None:
        self._ends = ends

    def sample_us(self) -> float:
        """Microseconds of a core that an agent step costs now: environments, predictions and training together.

        All cores are busy with it meanwhile; nothing else should be. It takes some 0.1 s.

        Raises:
          BenchmarkError: a process has ended or hangs.
        """
        for end in self._ends:
            end.send("work")
        spent = [_answer(end, _WORK_S) for end in self._ends]
        return round(1e6 * sum(spent) / len(spent) / _SAMPLES, 1)


@contextmanager
def control(env: str) -> Iterator[Control]:
    """Yields a control for training ``env`` with the defaults of ``ga3c train``; its processes end with the block."""
    context = multiprocessing.get_context("spawn")
    ends: list[Connection] = []
    processes: list[Any] = []
    try:
        for index in range(len(os.sched_getaffinity(0))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, env, index), daemon=True)
            process.start()
            theirs.close()
            ends.append(ours)
            processes.append(process)
        for end in ends:
            _answer(end, _START_S)
        yield Control(ends)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _answer(end: Connection, limit_s: float) -> float:
    try:
        if end.poll(limit_s):
            return float(end.recv())
    except EOFError:
        raise BenchmarkError("a control process has ended") from None
    raise BenchmarkError(f"a control process has said nothing for {limit_s:g} s")


def _serve(end: Connection, env: str, index: int) -> None:
    """The life of a process: works when asked, and answers with the seconds that it took."""
    import torch

    from ga3c.build import build_model
    from ga3c.model import Batch

    config, spec = resolve(read_options([env, "--device", "cpu"], "ga3c train"))
    envs = make_env(config.env_config(), env_seeds(config.seed, index, 0, _ENVS))
    envs.reset()
    actions = np.random.default_rng(index).integers(spec.num_actions, size=_ENVS)
    model, _ = build_model(config, spec)
    layout = SlabLayout(1, 1, _SAMPLES, spec.observation_shape, spec.observation_dtype)
    shape = (_SAMPLES, *layout.observation_shape)
    states = model.host_buffer(shape, layout.observation_dtype, channels_last=layout.channels_last)
    states.copy_(torch.randint(0, 256, states.shape))
    batch = Batch(
        states=states,
        actions=torch.arange(_SAMPLES) % spec.num_actions,
        returns=torch.zeros(_SAMPLES),
        live=torch.ones(_SAMPLES, dtype=torch.bool),
        versions=np.zeros(_SAMPLES, np.int64),
    )

    def work() -> None:
        for _ in range(_STEPS):
            envs.step(actions)
        for first in range(0, _SAMPLES, _PREDICTION_BATCH):
            model.predict(states[first : first + _PREDICTION_BATCH])
        model.update(batch, 1e-6)

    try:
        work()
        end.send(0.0)  # ready
        while end.recv():
            envs.step(actions)  # the first after a pause finds cold caches
            model.predict(states[:_PREDICTION_BATCH])
            began = time.monotonic()
            work()
            end.send(time.monotonic() - began)
    except EOFError:
        pass
