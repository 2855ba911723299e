"""What holds in every interleaving of actors, predictors and trainers, and that GA3C without lag is A2C."""

import gc
import os
import random
import socket
import threading
import time
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch

from ga3c.actor import Actor
from ga3c.batches import Batcher
from ga3c.build import build_model
from ga3c.channels import ActorChannel, ActorPort
from ga3c.collector import Collector
from ga3c.config import TrainConfig
from ga3c.envs import Player, Step, env_spec, make_env
from ga3c.metrics import Meters, UpdateFigures
from ga3c.model import Prediction
from ga3c.predictor import Predictor
from ga3c.queues import PredictionQueue, TrainingQueue
from ga3c.slabs import Slab, SlabLayout, create_slab_memory
from ga3c.trainer import Trainer

DEADLINE_S = 5.0


class System:
    """Real actors, queues, predictors and trainers, all of them threads of this process."""

    def __init__(self, layout, envs, model, batcher, *, predictors, trainers, min_batch, max_batch, patience_s=0.0):
        self.meters = Meters(1)
        self.gone = []
        self.requests = PredictionQueue(self.gone.append, lambda _, error: self.errors.append(error), patience_s)
        self.rollouts = TrainingQueue()
        self.stop = threading.Event()
        self.errors = []
        self.channels = []
        runs = []
        for index, env in enumerate(envs):
            fd = create_slab_memory(layout)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            channel = ActorChannel(index, ours, Slab(layout, fd))
            actors_slab = Slab(layout, fd)
            os.close(fd)
            self.channels.append(channel)
            self.rollouts.add_capacity((layout.segments - 1) * layout.t_max * layout.envs)
            self.requests.add(channel)
            runs.append(self._actor(env, actors_slab, theirs, layout))
        for _ in range(predictors):
            predictor = Predictor(self.requests, self.rollouts, model, self.meters, max_batch_size=max_batch)
            runs.append(partial(predictor.run, self.stop))
        for _ in range(trainers):
            trainer = Trainer(self.rollouts, batcher(), model, self.meters, lambda: 1e-3, min_batch_size=min_batch)
            runs.append(partial(trainer.run, self.stop))
        self.threads = [threading.Thread(target=self._caught, args=(run,), daemon=True) for run in runs]

    def _actor(self, env, slab, end, layout):
        def run():
            with end:
                Actor(env, slab, ActorPort(end, layout.segments)).run()

        return run

    def _caught(self, run):
        try:
            run()
        except BaseException as error:
            self.errors.append(error)

    def start(self):
        for thread in self.threads:
            thread.start()

    def close(self):
        self.rollouts.close()
        self.requests.close()
        deadline = time.monotonic() + DEADLINE_S
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self.threads), "a role did not end"
        if self.errors:
            raise self.errors[0]


@pytest.mark.parametrize(("env", "envs", "t_max"), [("CartPole-v1", 4, 16), ("Pong-v5", 2, 5)])
@pytest.mark.parametrize("seed", [1, 2])
def test_ga3c_without_lag_makes_the_update_of_a2c(env, envs, t_max, seed):
    network = "small" if env == "Pong-v5" else "mlp"
    config = TrainConfig(env=env, seed=seed, network=network, precision="fp32", device="cpu", normalise_states=False)
    spec = env_spec(config.env_config())
    seeds = list(range(seed, seed + envs))

    def batcher(model):
        return Batcher(model, discount=config.discount, trace_decay=config.gae_lambda)

    lock_step, _ = build_model(config, spec)
    torch.manual_seed(seed)
    collector = Collector(Player(make_env(config.env_config(), seeds)), lock_step, spec, t_max)
    expected = lock_step.update(batcher(lock_step).gather([collector.collect()]), 1e-3)

    model, _ = build_model(config, spec)
    updated, after_first = threading.Event(), {}
    update = model.update

    def keep_first(batch, learning_rate):
        figures = update(batch, learning_rate)
        if not updated.is_set():
            after_first.update({name: tensor.clone() for name, tensor in model.network.state_dict().items()})
            after_first["figures"] = figures
            updated.set()
        return figures

    model.update = keep_first
    torch.manual_seed(seed)
    layout = SlabLayout(2, t_max, envs, spec.observation_shape, spec.observation_dtype)
    system = System(layout, [make_env(config.env_config(), seeds)], model, lambda: batcher(model),
                    predictors=1, trainers=1, min_batch=envs * t_max, max_batch=64)  # fmt: skip
    system.start()
    assert updated.wait(20)
    system.close()
    assert after_first.pop("figures") == expected
    for name, tensor in lock_step.network.state_dict().items():
        assert torch.equal(after_first[name], tensor), name


class Stamped:
    """States say whose they are and which they are: (actor, environment, step); actions must answer their states."""

    def __init__(self, actor, num_envs, delay):
        self.num_envs = num_envs
        self._delay = delay
        self._states = np.zeros((num_envs, 3), np.float32)
        self._states[:, 0] = actor
        self._states[:, 1] = np.arange(num_envs)

    def reset(self):
        return self._states.copy()

    def step(self, actions):
        assert np.array_equal(actions, answer(self._states)), "an actor got the answer to another state"
        self._delay()
        self._states[:, 2] += 1
        never = np.zeros(self.num_envs, np.bool_)
        rewards = self._states[:, 2].copy()
        return Step(self._states.copy(), rewards, never, never, rewards, never, any_ended=False)


def answer(states):
    """An action that only this state has."""
    return (states @ np.float32([1_000_000, 10_000, 1])).astype(np.int64)


class SlowModel:
    """Answers states and checks what it is trained on, with delays in between."""

    def __init__(self, delay):
        self.version = 0
        self._delay = delay
        self._lock = threading.Lock()  # guards version and trained
        self.trained = Counter()
        self.answered = {}  # states, with the version that chose their actions

    def host_buffer(self, shape, dtype, *, channels_last):
        return torch.empty(shape, dtype=getattr(torch, dtype))

    def reads_in_place(self, places):
        return len(places) == 1

    def recall(self, rollouts):
        return None

    def predict_in_place(self, places):
        return self.predict(torch.from_numpy(places[0].arrays.observations), places)

    def predict(self, states, places):
        version = self.version
        self._delay()
        actions = answer(states.numpy())
        self.answered.update(dict.fromkeys(map(tuple, states.int().tolist()), version))
        self._delay()
        return Prediction(actions, actions.astype(np.float32), version)

    def update(self, batch, learning_rate):
        self._delay()
        states = batch.states.numpy()
        assert np.array_equal(batch.actions.numpy(), answer(states)), "a segment was written while it was read"
        with self._lock:
            names = list(map(tuple, states.astype(int).tolist()))
            self.trained.update(names)
            assert [self.answered[name] for name in names] == batch.versions.tolist(), "another version's lag"
            lags = self.version - batch.versions
            assert (lags >= 0).all()
            self.version += 1
        values, counts = np.unique(lags, return_counts=True)
        lags = dict(zip(values.tolist(), counts.tolist(), strict=True))
        return UpdateFigures(len(states), 0.0, 0.0, 0.0, 0.0, learning_rate, lags)


class SlowBatcher(Batcher):
    """Waits before it copies what it was given."""

    def __init__(self, model, delay):
        super().__init__(model, discount=0.9, trace_decay=1.0)
        self._delay = delay

    def gather(self, rollouts):
        self._delay()
        for r in rollouts:
            steps = r.field("observations")[..., 2]
            assert (np.diff(steps, axis=0) == 1).all(), "the steps of a rollout do not follow each other"
            assert np.array_equal(r.field("bootstrap_values"), answer_of_next(r)), "another state's value"
        batch = super().gather(rollouts)
        self._delay()
        return batch


def answer_of_next(rollouts):
    last = rollouts.field("observations")[-1].copy()
    last[:, 2] += 1
    return answer(last).astype(np.float32)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", range(4))
def test_in_every_interleaving_answers_segments_and_counts_are_right_and_all_ends(part):
    for seed in range(part * 50, part * 50 + 50):
        draw = random.Random(seed)
        longest = draw.choice([0.0, 0.0005, 0.002])

        def delay(draw=draw, longest=longest):
            if draw.random() < 0.5:
                time.sleep(draw.uniform(0, longest))

        layout = SlabLayout(draw.choice([2, 3]), draw.choice([1, 2, 4]), draw.choice([1, 3]), (3,), "float32")
        model = SlowModel(delay)
        actors = draw.choice([1, 3, 5])
        system = System(
            layout,
            [Stamped(actor, layout.envs, delay) for actor in range(actors)],
            model,
            lambda model=model, delay=delay: SlowBatcher(model, delay),
            predictors=draw.choice([1, 2, 3]),
            trainers=draw.choice([1, 2]),
            min_batch=draw.choice([0, layout.t_max * layout.envs, actors * layout.t_max * layout.envs]),
            max_batch=draw.choice([1, 4, 100]),
            patience_s=draw.choice([0.0, 0.001]),
        )
        system.start()
        time.sleep(draw.uniform(0.01, 0.12))
        system.close()
        assert max(model.trained.values(), default=1) == 1, f"seed {seed}: a step was trained on twice"
        unfinished = sum(channel.unfinished.steps for channel in system.channels)
        in_flight = unfinished + system.rollouts.live_steps()
        assert system.meters.env_steps == model.trained.total() + in_flight, f"seed {seed}: a step was lost"
        assert system.meters.samples == model.trained.total()
    del system
    gc.collect()  # the slabs' memory
