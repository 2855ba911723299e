"""Measures a setting: trains with it for some seconds, in this process, with a learning rate of 0."""

import time
from collections import OrderedDict
from collections.abc import Callable

from ga3c.checkpoint import Progress
from ga3c.config import TrainConfig
from ga3c.envs import EnvSpec
from ga3c.errors import WorkerError
from ga3c.ga3c import Ga3c
from ga3c.metrics import Meters
from ga3c.model import Model
from ga3c.system import Context
from ga3c.tune.search import Setting, Window, with_setting

WARM_UP_S = 1.0  # after a setting was changed
_LONGEST_WARM_UP_S = 60.0  # on a machine that is busy with something else
WINDOW_S = 1.0
_START_S = 300.0  # that environments may take to be made, and the first updates after that
_KEPT = 5  # sets of environments that are kept, waiting, for another trial
_TICK_S = 0.1


class Interrupted(Exception):  # noqa: N818  (no error)
    """A signal has come."""


class NotReadyError(WorkerError):
    """A setting has not come to train in time: the machine is busy with something else, or an environment hangs."""


class Bench:
    """Runs settings by turns on one model; used as a context."""

    def __init__(
        self, config: TrainConfig, spec: EnvSpec, model: Model, asked_to_stop: Callable[[float], bool]
    ) -> None:
        """``asked_to_stop(seconds)`` waits so long, and says whether the user wants an end."""
        self._config = config
        self._spec = spec
        self._model = model
        self._asked_to_stop = asked_to_stop
        self._systems: OrderedDict[tuple[int, int], tuple[Ga3c, Meters]] = OrderedDict()  # by actors and environments

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        for system, _meters in self._systems.values():
            system.stop()

    def measure(self, setting: Setting, windows: int) -> list[Window]:
        """Trains with ``setting`` for ``windows`` windows, after a warm-up.

        Raises:
          WorkerError: a role failed; ``NotReadyError``: the environments were not made in time.
          Interrupted: a signal has come.
        """
        config = with_setting(self._config, setting)
        system, meters = self._system(config)
        system.adjust(config)
        try:
            self._warm_up(system, meters, config)
            meters.rates()
            found = []
            for _ in range(windows):
                self._run(system, WINDOW_S)
                rates = meters.rates()
                found.append(Window(rates["pps"], rates["training_samples_per_s"], rates["policy_lag_mean"]))
            return found
        finally:
            system.pause()

    def _warm_up(self, system: Ga3c, meters: Meters, config: TrainConfig) -> None:
        """Until what the last pause had left in segments and queues, of versions long ago, has been trained on."""
        left_over = config.actors * config.envs_per_actor * config.t_max * config.segments
        done, deadline = meters.samples + left_over, time.monotonic() + _LONGEST_WARM_UP_S
        self._run(system, WARM_UP_S)
        while meters.samples < done and time.monotonic() < deadline:
            self._run(system, _TICK_S)

    def _system(self, config: TrainConfig) -> tuple[Ga3c, Meters]:
        """The system that has these environments; made anew if there is none, in the place of the oldest."""
        games = (config.actors, config.envs_per_actor)
        if games in self._systems:
            self._systems.move_to_end(games)
            return self._systems[games]
        if len(self._systems) == _KEPT:
            _, (oldest, _meters) = self._systems.popitem(last=False)
            oldest.stop()
        meters = Meters(self._spec.frames_per_step)
        context = Context(config, self._spec, self._model, meters, lambda: 0.0, lambda text: None, Progress())
        system = Ga3c(context)
        self._systems[games] = system, meters
        system.start()
        deadline = time.monotonic() + _START_S
        while meters.updates < 2 or system.actors.at_work < config.actors:
            self._run(system, _TICK_S)
            if time.monotonic() > deadline:
                raise NotReadyError(f"{games[0]} actors of {games[1]} environments have not trained in {_START_S:g} s")
        return system, meters

    def _run(self, system: Ga3c, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._asked_to_stop(min(left, _TICK_S)):
                raise Interrupted
            system.tick()
            if system.failure is not None:
                raise system.failure.error()
