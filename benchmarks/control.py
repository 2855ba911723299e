"""A fixed piece of a run's own work, done by turns with it: says how fast the machine is at that moment.

Other tenants make a shared machine faster and slower within the hour. A run that ages falls behind this work; one on a
machine that drifts does not.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from limits import Job, answer, processes, work

from ga3c.config import TrainConfig
from ga3c.envs import EnvSpec
from ga3c.resolve import read_options, resolve
from ga3c.slabs import SlabLayout

_ENVS, _PREDICTIONS, _SAMPLES = 16, 32, 160  # at a time; of each as many as there are samples


class Control:
    """Processes, one a core, that do nothing until they are asked."""

    def __init__(self, ends: list[Connection]) -> None:
        """``ends`` are those of processes that serve."""
        self._ends = ends

    def sample_us(self) -> float:
        """Microseconds of a core that an agent step costs now: environments, predictions and training together.

        All cores are busy with it meanwhile; nothing else should be. It takes some 0.1 s.

        Raises:
          BenchmarkError: a process has ended or hangs.
        """
        for end in self._ends:
            end.send("work")
        spent = [float(answer(end)) for end in self._ends]
        return round(1e6 * sum(spent) / len(spent) / _SAMPLES, 1)


@contextmanager
def control(env: str) -> Iterator[Control]:
    """Yields a control for training ``env`` with the defaults of ``ga3c train``; its processes end with the block."""
    config, spec = resolve(read_options([env, "--device", "cpu"], "ga3c train"))
    with processes(_serve, config, spec) as ends:
        for end in ends:
            answer(end)  # it is ready
        yield Control(ends)


def _serve(end: Connection, config: TrainConfig, spec: EnvSpec, index: int) -> None:
    """The life of a process: works when asked, and answers with the seconds that it took."""
    try:
        turned = SlabLayout.of(spec, segments=1, t_max=1, envs=1, on_cpu=True).channels_last
        way = (config.precision, 1, "channels-last" if turned else "contiguous")
        jobs = [Job("env", _ENVS), Job("predict", _PREDICTIONS, *way), Job("train", _SAMPLES, *way)]
        calls = [work(config, spec, job, index) for job in jobs]
        for call, _ in calls:
            call()
        end.send("ready")
        while end.recv():
            for call, _ in calls[:2]:
                call()  # the first after a pause finds cold caches
            began = time.monotonic()
            for call, steps in calls:
                for _ in range(_SAMPLES // steps):
                    call()
            end.send(time.monotonic() - began)
    except EOFError:
        pass
    except Exception as error:
        end.send(error)
