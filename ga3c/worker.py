"""Mode a3c's worker: a process with an environment and a replica of its own (Mnih et al. 2016, algorithm S3).

Before each rollout the replica copies the shared parameters; its gradient is applied to them without a lock, with the
shared statistics of the optimiser.
"""

import copy
import dataclasses
import json
import os
import socket
import time
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ga3c.batches import Batcher
from ga3c.channels import MAX_MESSAGE_BYTES
from ga3c.choices import LossConfig, Precision, Schedule
from ga3c.collector import Collector
from ga3c.config import TrainConfig, config_from_json
from ga3c.curves import find_curve, is_simulated
from ga3c.device import keep_freed_memory, place, plain_torch
from ga3c.envs import EnvSpec, Episode, Player, env_seeds, load_backends, make_env
from ga3c.metrics import UpdateFigures
from ga3c.model import Model
from ga3c.networks import build_network
from ga3c.optim import build_optimiser
from ga3c.shared import Counts, SharedState
from ga3c.simulated import SimulatedModel, Timeline

_DIVERSITY = 3.0  # workers' learning rates and entropy costs lie between a third and three times the given ones


class Replica(Model):
    """A worker's own network; updates go to the shared parameters, which it copies when it is asked to."""

    def __init__(
        self,
        network: nn.Module,
        shared: nn.Module,
        optimiser: torch.optim.Optimizer,
        counts: Counts,
        index: int,
        loss: LossConfig,
        *,
        max_grad_norm: float,
        device: torch.device,
        precision: Precision,
    ) -> None:
        """``optimiser`` is over the parameters of ``shared``; ``index`` is this worker's row in ``counts``."""
        super().__init__(network, optimiser, loss, max_grad_norm=max_grad_norm, device=device, precision=precision)
        self._own: list[Tensor] = list(network.parameters())
        self._shared: list[Tensor] = list(shared.parameters())
        self._counts = counts
        self._index = index

    def sync(self) -> None:
        """Copies the shared parameters, torn ones too where another worker is writing: that is the algorithm."""
        self.version = self._counts.updates
        with torch.no_grad():
            torch._foreach_copy_(self._own, self._shared)
        self._publish()

    def _step(self) -> int:
        """Applies the rollout's own gradient to the shared parameters."""
        for shared, own in zip(self._shared, self._own, strict=True):
            # A new tensor each time: with gradients that stay aliased, those of earlier rollouts would be added up.
            shared.grad = None if own.grad is None else own.grad.to(shared.device)
        before = self._counts.updates
        self.optimiser.step()
        self._counts.add(self._index, 0, 1)
        return before


class SimulatedReplica(SimulatedModel):
    """A replica on a device that only waits: it counts updates, and shares nothing else."""

    def count_in(self, counts: Counts, index: int) -> "SimulatedReplica":
        """Its row in ``counts`` is ``index``; returns itself."""
        self._counts = counts
        self._index = index
        return self

    def sync(self) -> None:
        """Copies nothing."""
        self.version = self._counts.updates

    def _step(self) -> int:
        before = self._counts.updates
        self._counts.add(self._index, 0, 1)
        return before


@dataclasses.dataclass(frozen=True)
class Report:
    """What a worker tells the learner after each rollout: steps taken, its update, its time, and finished games."""

    env_steps: int
    rows: int
    update: UpdateFigures
    seconds: dict[str, float]
    episodes: list[Episode]

    def pack(self) -> bytes:
        """As one message."""
        return json.dumps(dataclasses.astuple(self)).encode()

    @classmethod
    def unpack(cls, message: bytes) -> "Report":
        """The inverse of ``pack``."""
        env_steps, rows, update, seconds, episodes = json.loads(message)
        figures = UpdateFigures(*update)
        figures = figures._replace(lags={int(lag): count for lag, count in figures.lags.items()})
        return cls(env_steps, rows, figures, seconds, [Episode(*e) for e in episodes])


class Worker:
    """Sync, rollout, update, report, again and again."""

    def __init__(
        self,
        replica: Replica | SimulatedReplica,
        player: Player,
        collector: Collector,
        batcher: Batcher,
        counts: Counts,
        schedule: Schedule,
        end: socket.socket,
        *,
        index: int,
        resumed_steps: int,
    ) -> None:
        """``resumed_steps`` were taken before this run."""
        self._replica = replica
        self._player = player
        self._collector = collector
        self._batcher = batcher
        self._counts = counts
        self._schedule = schedule
        self._end = end
        self._index = index
        self._resumed_steps = resumed_steps

    def run(self) -> None:
        """Works until the learner closes the channel."""
        while True:
            report = self._rollout_and_update()
            try:
                self._end.send(report.pack())
            except OSError:
                return

    def _rollout_and_update(self) -> Report:
        began = time.perf_counter()
        self._replica.sync()
        synced = time.perf_counter()
        rollouts = self._collector.collect()
        collected = time.perf_counter()
        batch = self._batcher.gather([rollouts])
        steps = int(rollouts.field("live").sum())
        self._counts.add(self._index, steps, 0)
        copied = time.perf_counter()
        env_steps = self._resumed_steps + self._counts.env_steps
        update = self._replica.update(batch, self._schedule.rate(env_steps, self._counts.time_s))
        seconds = self._collector.seconds
        seconds["copying"] += synced - began + copied - collected
        seconds["training"] = time.perf_counter() - copied
        episodes = self._player.episodes[:]
        self._player.episodes.clear()
        return Report(steps, rollouts.samples, update, seconds, episodes)


def prepare() -> None:
    """What all workers share, in the forkserver."""
    load_backends()


def main(
    settings: dict[str, Any], index: int, generation: int, end: socket.socket, memory_fd: int, at_end: ExitStack
) -> None:
    """The life of a worker process; ``settings`` are those of ``worker_settings``.

    It registers the closing of the environment on ``at_end``, which the caller closes: see ``ForkServer``.
    """
    config = config_from_json(settings["config"])
    spec = EnvSpec(**settings["spec"] | {"observation_shape": tuple(settings["spec"]["observation_shape"])})
    seed = settings["seed"]
    stay_on_one_core(index, config.actors)
    keep_freed_memory()
    torch.set_num_threads(1)
    actions_seed = int(np.random.SeedSequence((seed, index, generation)).generate_state(1)[0])
    if config.actor_diversity:
        config = diversify(config, index)
    with plain_torch():
        network = build_network(
            config.network,
            spec.observation_shape,
            spec.num_actions,
            config.initialisation,
            channels_last=spec.channels_last,
        )
    place(network, torch.device("cpu"))
    shared_network = copy.deepcopy(network)
    optimiser = build_optimiser(
        config.optimiser, shared_network.parameters(), config.learning_rate, config.decay, config.epsilon
    )
    shared = SharedState(shared_network, optimiser, config.actors, memory_fd)
    replica: Replica | SimulatedReplica
    if is_simulated(config.device):
        replica = SimulatedReplica(
            network,
            optimiser,
            config.loss_config(),
            curve=find_curve(config.device, config.network),
            timeline=Timeline(memory_fd),
            num_actions=spec.num_actions,
        ).count_in(shared.counts, index)
    else:
        shared.attach(shared_network, optimiser)
        network.load_state_dict(shared_network.state_dict())
        device = torch.device(settings["devices"][index % len(settings["devices"])])
        place(network, device)
        replica = Replica(
            network,
            shared_network,
            optimiser,
            shared.counts,
            index,
            config.loss_config(),
            max_grad_norm=config.max_grad_norm,
            device=device,
            precision=settings["precision"],
        )
    os.close(memory_fd)
    replica.seed_actions(actions_seed)
    env = make_env(config.env_config(), env_seeds(seed, index, generation, 1), in_worker=True)
    at_end.callback(env.close)
    player = Player(env)
    Worker(
        replica,
        player,
        Collector(player, replica, spec, config.t_max),
        Batcher(replica, discount=config.discount, trace_decay=config.gae_lambda),
        shared.counts,
        config.schedule(),
        end,
        index=index,
        resumed_steps=settings["resumed_steps"],
    ).run()


def stay_on_one_core(index: int, workers: int) -> None:
    """Gives a worker a core, if all can have one alike; to be called before its environment is made.

    Its thread and the environment's take turns: on one core they hand over without waking another, which is 10 to 25 %
    of a worker's steps (measured on 2 cores). With another number of workers the kernel shares the cores out better.
    """
    cores = sorted(os.sched_getaffinity(0))
    if workers <= len(cores) or workers % len(cores) == 0:
        first = os.getppid()  # another run's workers begin with another core
        os.sched_setaffinity(0, {cores[(first + index) % len(cores)]})


def worker_settings(
    config: TrainConfig,
    spec: EnvSpec,
    *,
    devices: list[str],
    precision: Precision,
    resumed_steps: int,
) -> dict[str, Any]:
    """What ``main`` has to know, as plain values; worker i computes on device i modulo their number."""
    settings = {
        "config": config.to_json(),
        # Bounds can be as large as an observation; what the network makes of them lies in the shared memory.
        "spec": dataclasses.asdict(dataclasses.replace(spec, bounds=None)),
        "devices": devices,
        "precision": precision,
        "seed": config.seed + resumed_steps,
        "resumed_steps": resumed_steps,
    }
    assert len(json.dumps(settings)) < MAX_MESSAGE_BYTES
    return settings


def worker_devices(device: str) -> list[str]:
    """Where replicas compute: ``cuda`` without a number is every GPU in turn."""
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cpu" if device == "auto" else device]


def diversify(config: TrainConfig, index: int) -> TrainConfig:
    """A worker's learning rate and entropy cost: log-uniform around the given ones, the same in each start."""
    draw = np.random.default_rng((config.seed, index))
    rate, cost = np.exp(draw.uniform(-np.log(_DIVERSITY), np.log(_DIVERSITY), 2))
    return dataclasses.replace(
        config, learning_rate=config.learning_rate * float(rate), entropy_cost=config.entropy_cost * float(cost)
    )
