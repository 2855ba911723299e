"""Mode ``a2c``: one process steps every environment in lock step, predicts for all at once, and updates every t_max.

Deterministic on the CPU: the same seed gives the same weights, episodes and losses, bit for bit.
"""

import contextlib
import os
import threading
import time

from ga3c.batches import Batcher
from ga3c.collector import Collector
from ga3c.envs import EnvError, Player, VectorEnv, env_seeds, make_env
from ga3c.forkserver import CLOSE_S
from ga3c.supervisor import MAX_DEATHS, Failure, Failures, ThreadGroup
from ga3c.system import STOP_TIMEOUT_S, Account, Context
from ga3c.user_code import USER_ERRORS


class A2c:
    """The running system. ``start``, then ``tick`` a few times a second, then ``stop``."""

    def __init__(self, context: Context) -> None:
        """The environments are made by the thread that steps them."""
        self._notify = context.notify
        self._failures = Failures()
        self._lock_step = LockStep(context)
        self._thread = ThreadGroup("learner", lambda: self._lock_step, self._failures)

    def start(self) -> None:
        """Starts the one thread that does everything."""
        self._thread.set_count(1)

    @property
    def failure(self) -> Failure | None:
        """What ended the thread."""
        return self._failures.first

    def tick(self) -> None:
        """Nothing here goes on unseen."""

    def account(self) -> Account:
        """Exact once the thread has stopped."""
        return Account(in_flight=self._lock_step.in_hand)

    def stop(self) -> None:
        """Ends the thread after the rollout and update in hand; it closes its environments, which may take longer."""
        late = self._thread.join(time.monotonic() + STOP_TIMEOUT_S)
        if late and self._lock_step.is_closing:
            self._notify(f"environments are still being closed, for {CLOSE_S} s at most; Ctrl-C does not wait for them")
            late = self._thread.join(time.monotonic() + CLOSE_S)
        for name in late:
            self._notify(f"{name} was still busy {STOP_TIMEOUT_S:g} s after it was asked to stop")


class LockStep:
    """Rollout, update, rollout, update."""

    def __init__(self, context: Context) -> None:
        """The context's seed decides the games and the actions that are drawn."""
        config, model = context.config, context.model
        model.seed_actions(context.seed)
        self._context = context
        self._env: VectorEnv | None = None
        self.is_closing = False  # what is left to do is to close the environments
        self.in_hand = 0  # live steps that were counted and are not trained on yet
        self._batcher = Batcher(model, discount=config.discount, trace_decay=config.gae_lambda)
        self._model = model
        self._meters = context.meters
        self._learning_rate = context.learning_rate
        self._total_steps = config.total_steps

    def run(self, stop: threading.Event) -> None:
        """Trains until ``stop`` is set or the total of steps is reached: at the same update in every run."""
        try:
            self._train(stop)
        finally:
            self.is_closing = True
            self._close_games()

    def _train(self, stop: threading.Event) -> None:
        failed = in_a_row = 0
        while not (stop.is_set() or (self._total_steps and self._meters.env_steps >= self._total_steps)):
            try:
                if self._env is None:
                    self._start_games(failed)
                self._rollout_and_update()
                in_a_row = 0
            except EnvError as error:
                failed, in_a_row = failed + 1, in_a_row + 1
                self._close_games()
                if self._context.config.on_env_error == "stop" or in_a_row >= MAX_DEATHS:
                    raise
                self._context.notify(f"{error}; all games are started anew, the unfinished rollout is dropped")

    def _start_games(self, generation: int) -> None:
        """Makes new environments; each generation plays games of its own."""
        context = self._context
        config = context.config
        seeds = env_seeds(context.seed, 0, generation, config.envs_per_actor)
        threads = min(config.envs_per_actor, len(os.sched_getaffinity(0)))
        self._env = make_env(config.env_config(), seeds, threads)
        self._player = Player(self._env)
        self._collector = Collector(self._player, context.model, context.spec, config.t_max)

    def _close_games(self) -> None:
        with contextlib.suppress(*USER_ERRORS):  # whatever an environment does that has just failed
            if self._env is not None:
                self._env.close()
        self._env = None

    def _rollout_and_update(self) -> None:
        rollouts = self._collector.collect()
        began = time.perf_counter()
        batch = self._batcher.gather([rollouts])
        copied = time.perf_counter()
        steps, rows = rollouts.field("live"), rollouts.count
        self._meters.predicted(int(steps.sum()), rows, self._player.episodes, batches=len(steps))
        self._player.episodes.clear()
        self.in_hand = int(steps.sum())
        update = self._model.update(batch, self._learning_rate())
        self._meters.updated(update, rollouts.samples)
        self.in_hand = 0
        seconds = self._collector.seconds
        seconds["copying"] += copied - began
        self._meters.spent("learner", **seconds, training=time.perf_counter() - copied)
