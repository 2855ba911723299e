"""What the baselines promise: a2c is deterministic; a3c shares parameters, and applies each rollout's own gradient."""

import copy
import dataclasses
import os
import signal
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ga3c.a2c import A2c, LockStep
from ga3c.a3c import A3c, _Listener, _WorkerChannel
from ga3c.build import build_model
from ga3c.checkpoint import (
    Progress,
    load_network,
    load_optimiser,
    named_tensors,
    read_checkpoint,
    snapshot,
    write_checkpoint,
)
from ga3c.choices import LossConfig
from ga3c.envs import EnvConfig, Episode, env_spec
from ga3c.ga3c import Ga3c
from ga3c.metrics import Meters, UpdateFigures
from ga3c.model import Batch, Model
from ga3c.networks import build_network
from ga3c.optim import build_optimiser
from ga3c.presets import default_config, in_mode
from ga3c.shared import SharedState, create_shared_memory
from ga3c.system import Context
from ga3c.worker import Replica, Report, diversify, stay_on_one_core
from tests.running import wait_for

SYSTEMS = {"ga3c": Ga3c, "a3c": A3c, "a2c": A2c}
LOSS = LossConfig(entropy_cost=0.01, value_cost=0.5, reduction="mean", log_floor=0.0, normalise_advantages=False)


class Recorder(Meters):
    """Keeps everything that is told of updates and episodes."""

    def __init__(self, resumed=Progress()):  # noqa: B008  (frozen)
        super().__init__(1, env_steps=resumed.env_steps, updates=resumed.updates)
        self.figures, self.played = [], []

    def updated(self, update, rows):
        super().updated(update, rows)
        self.figures.append(update)

    def predicted(self, live, rows, episodes, batches=1):
        self.played += episodes
        super().predicted(live, rows, episodes, batches)


def lock_step(env, seed, total_steps, **changes):
    """Trains to a total of steps; returns weights, figures of all updates, and episodes."""
    spec = env_spec(EnvConfig(env))
    config = default_config("a2c", "fast", spec, cuda=False)
    config = dataclasses.replace(config, env=env, seed=seed, total_steps=total_steps, device="cpu", **changes)
    model, _ = build_model(config, spec)
    meters = Recorder()
    schedule = config.schedule()
    rate = lambda: schedule.rate(meters.env_steps, 0.0)  # noqa: E731
    LockStep(Context(config, spec, model, meters, rate, print, Progress())).run(threading.Event())
    return {name: t.clone() for name, t in named_tensors(model.network, model.optimiser).items()}, meters


@pytest.mark.parametrize(
    ("env", "steps", "changes"),
    [("Pong-v5", 400, {"envs_per_actor": 4, "torch_threads": 2}), ("CartPole-v1", 4000, {})],
)
def test_a2c_is_the_same_bit_for_bit_with_the_same_seed_and_another_with_another(env, steps, changes):
    (first, told), (again, told_again) = (lock_step(env, 3, steps, **changes) for _ in range(2))
    other, _ = lock_step(env, 4, steps, **changes)
    assert told.env_steps == told_again.env_steps >= steps
    assert told.figures == told_again.figures
    assert told.played == told_again.played
    assert len(told.figures) > 5
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
    assert not all(torch.equal(tensor, other[name]) for name, tensor in first.items())


@pytest.mark.parametrize(("env", "steps", "envs"), [("CartPole-v1", 2000, 8), ("Pong-v5", 400, 4)])
def test_a_resumed_a2c_run_is_bit_for_bit_one_that_made_new_environments_there(tmp_path, env, steps, envs):
    spec = env_spec(EnvConfig(env))
    config = default_config("a2c", "fast", spec, cuda=False)
    config = dataclasses.replace(config, env=env, total_steps=steps, envs_per_actor=envs, device="cpu")

    def train(model, config, progress):
        meters = Recorder(progress)
        context = Context(config, spec, model, meters, lambda: 1e-3, print, progress)
        # In a thread of its own, as in a run: that is what has the generator of the actions.
        thread = threading.Thread(target=lambda: LockStep(context).run(threading.Event()))
        thread.start()
        thread.join(60)
        return meters

    model, _ = build_model(config, spec)
    progress = Progress(train(model, config, Progress()).env_steps, model.version, 0.0)
    path = write_checkpoint(tmp_path, config, progress, snapshot(model.network, model.optimiser), keep=1)
    resumed, _ = build_model(dataclasses.replace(config, seed=9), spec)
    checkpoint = read_checkpoint(path)
    with resumed.changing():
        load_network(checkpoint, resumed.network, path)
        load_optimiser(checkpoint, resumed.optimiser, path)
    longer = dataclasses.replace(config, total_steps=2 * steps)
    expected, told = train(model, longer, progress), train(resumed, longer, checkpoint.progress)
    assert told.env_steps == expected.env_steps >= 2 * steps
    assert told.figures == expected.figures
    assert told.played == expected.played
    theirs = named_tensors(model.network, model.optimiser)
    for name, tensor in named_tensors(resumed.network, resumed.optimiser).items():
        assert torch.equal(tensor, theirs[name]), name


def test_every_predicted_step_is_trained_on_once_in_a2c():
    _, told = lock_step("CartPole-v1", 1, 3000)
    assert sum(figures.samples for figures in told.figures) == told.env_steps
    assert {lag for figures in told.figures for lag in figures.lags} == {0}
    assert sum(episode.length for episode in told.played) <= told.env_steps


def parts(workers=2, optimiser="adam", network="small"):
    """A learner's network and optimiser, and the descriptor of the memory in which they are shared."""
    torch.manual_seed(1)
    shape = (4, 84, 84) if network == "small" else (4,)
    made = build_network(network, shape, 3, "orthogonal").to(memory_format=torch.channels_last)
    built = build_optimiser(optimiser, made.parameters(), 1e-2, 0.99, 1e-5)
    return made, built, create_shared_memory(made, built, workers)


def replica(learner, optimiser_name, fd, index, workers=2):
    """A worker's replica, as ``worker.main`` wires it."""
    network = copy.deepcopy(learner)
    shared_network = copy.deepcopy(learner)
    optimiser = build_optimiser(optimiser_name, shared_network.parameters(), 1e-2, 0.99, 1e-5)
    shared = SharedState(shared_network, optimiser, workers, fd)
    shared.attach(shared_network, optimiser)
    made = Replica(
        network, shared_network, optimiser, shared.counts, index, LOSS,
        max_grad_norm=0.0, device=torch.device("cpu"), precision="fp32",
    )  # fmt: skip
    return made, shared


def batch(network="small", size=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shape = (4, 84, 84) if network == "small" else (4,)
    states = torch.randint(0, 256, (size, *shape), dtype=torch.uint8, generator=draw)
    return Batch(
        states=states if network == "small" else states.float() / 255,
        actions=torch.randint(0, 3, (size,), generator=draw),
        returns=torch.randn(size, generator=draw),
        live=torch.ones(size, dtype=torch.bool),
        versions=np.zeros(size, np.int64),
    )


def share(learner, optimiser, fd, workers=2):
    shared = SharedState(learner, optimiser, workers, fd)
    with torch.no_grad():
        shared.fill(learner, optimiser)
        shared.attach(learner, optimiser)
    return shared


@pytest.mark.parametrize("optimiser", ["adam", "rmsprop"])
def test_updates_of_two_replicas_are_those_of_one_model_that_makes_them_in_turn(optimiser):
    """Gradients that add up over rollouts, statistics that are not shared, or strides that differ would all show."""
    learner, built, fd = parts(optimiser=optimiser)
    alone = copy.deepcopy(learner)
    truth = Model(
        alone, build_optimiser(optimiser, alone.parameters(), 1e-2, 0.99, 1e-5), LOSS,
        max_grad_norm=0.0, device=torch.device("cpu"), precision="fp32",
    )  # fmt: skip
    share(learner, built, fd)
    workers = [replica(learner, optimiser, fd, index)[0] for index in range(2)]
    for turn in range(6):
        worker = workers[turn % 2]
        worker.sync()
        ours, theirs = worker.update(batch(seed=turn), 1e-2), truth.update(batch(seed=turn), 1e-2)
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-4)
    os.close(fd)
    for (name, shared), expected in zip(learner.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(shared, expected, rtol=1e-4, atol=1e-6, msg=name)
    statistics, expected = named_tensors(learner, built), named_tensors(alone, truth.optimiser)
    for name in statistics:
        torch.testing.assert_close(statistics[name], expected[name], rtol=1e-3, atol=1e-6, msg=name)


def test_both_sides_lay_the_memory_out_alike_whatever_the_order_of_their_statistics():
    learner, built, fd = parts(network="mlp")
    for state in built.state.values():
        for name in sorted(state):  # as a resumed learner has them
            state[name] = state.pop(name)
        state["step"].fill_(7.0)
    share(learner, built, fd)
    worker, _ = replica(learner, "adam", fd, 0)
    os.close(fd)
    assert {float(state["step"]) for state in worker.optimiser.state.values()} == {7.0}


def test_a_replica_predicts_with_what_it_copied_until_it_copies_again():
    learner, built, fd = parts(network="mlp")
    share(learner, built, fd)
    (first, _), (second, _) = (replica(learner, "adam", fd, index) for index in range(2))
    os.close(fd)
    states = batch("mlp").states
    first.sync()
    before = first.predict(states).values.copy()
    second.sync()
    second.update(batch("mlp"), 1e-2)
    np.testing.assert_array_equal(first.predict(states).values, before)
    first.sync()
    assert not np.array_equal(first.predict(states).values, before)
    assert first.version == 1


def test_policy_lag_is_the_number_of_updates_of_others_since_the_copy():
    learner, built, fd = parts(network="mlp")
    share(learner, built, fd)
    (first, _), (second, shared) = (replica(learner, "adam", fd, index) for index in range(2))
    os.close(fd)
    first.sync()
    versions = np.full(5, first.version)
    for _ in range(3):
        second.sync()
        second.update(batch("mlp"), 1e-2)
    late = first.update(dataclasses.replace(batch("mlp"), versions=versions), 1e-2)
    assert late.lags == {3: 5}
    assert shared.counts.updates == 4


def test_a_report_says_the_same_after_its_journey():
    figures = UpdateFigures(5, 0.1, 0.2, 0.3, 0.4, 1e-3, {2: 4, 7: 1})
    report = Report(5, 6, figures, {"environment": 0.25}, [Episode(-21.0, 764)])
    assert Report.unpack(report.pack()) == report


def test_diverse_workers_differ_around_the_given_values_and_stay_the_same_when_restarted():
    config = default_config("a3c", "fast", env_spec(EnvConfig("Pong-v5")), cuda=False)
    drawn = [diversify(config, index) for index in range(8)]
    assert drawn == [diversify(config, index) for index in range(8)]
    assert len({c.learning_rate for c in drawn}) == len({c.entropy_cost for c in drawn}) == 8
    for c in drawn:
        assert 1 / 3 <= c.learning_rate / config.learning_rate <= 3
        assert 1 / 3 <= c.entropy_cost / config.entropy_cost <= 3


@pytest.mark.parametrize("mode", SYSTEMS)
def test_every_mode_learns_to_answer_an_observation_with_its_identity(mode):
    env = "tests.tiny_envs:Identity-v0"
    spec = env_spec(EnvConfig(env))
    config = in_mode(default_config("ga3c", "fast", spec, cuda=False), mode, spec, cuda=False)
    config = dataclasses.replace(config, env=env, anneal=False, learning_rate=3e-3, entropy_cost=0.0, device="cpu")
    model, _ = build_model(config, spec)
    meters = Meters(1)
    system = SYSTEMS[mode](Context(config, spec, model, meters, lambda: 3e-3, lambda text: None, Progress()))
    system.start()
    deadline = time.monotonic() + 90
    try:
        while not (solved := (meters.episode_return_mean or 0.0) > 9.3) and time.monotonic() < deadline:
            assert system.failure is None, system.failure
            time.sleep(0.05)
        system.tick()
        assert model.version > 0
    finally:
        system.stop()
    assert solved


def test_a_killed_worker_is_replaced_and_the_others_go_on():
    env = "CartPole-v1"
    spec = env_spec(EnvConfig(env))
    config = dataclasses.replace(default_config("a3c", "fast", spec, cuda=False), env=env, actors=2, device="cpu")
    model, _ = build_model(config, spec)
    meters, said = Meters(1), []
    system = A3c(Context(config, spec, model, meters, lambda: 1e-3, said.append, Progress()))
    system.start()

    def updates_after(count):
        deadline = time.monotonic() + 60
        while meters.updates < count and time.monotonic() < deadline and not system.failure:
            time.sleep(0.02)
        assert system.failure is None, system.failure
        assert meters.updates >= count

    try:
        updates_after(10)
        for kills in range(1, 4):
            victim = system.workers.pids()[0]
            os.kill(victim, signal.SIGKILL)
            updates_after(meters.updates + 20)
            # Both are told a little later.
            assert wait_for(lambda victim=victim: victim not in system.workers.pids())
            assert wait_for(lambda kills=kills: sum("dropped: it died" in line for line in said) == kills), said
    finally:
        system.stop()
    system.tick()
    # An update that was applied but not reported is one of a killed worker.
    assert 0 <= model.version - meters.updates <= 3 + config.actors
    assert all(torch.isfinite(p).all() for p in model.network.parameters())


def test_what_workers_had_reported_before_the_end_is_counted_though_it_was_not_read_yet():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    meters = Meters(1)
    listener = _Listener(meters)
    listener.add(_WorkerChannel(0, ours))
    report = Report(5, 5, UpdateFigures(5, 0.1, 0.2, 1.0, 1.0, 1e-3, {0: 5}), {"training": 0.1}, [])
    for _ in range(100):
        theirs.send(report.pack())
    listener.stop()
    listener.run(SimpleNamespace(on_gone=lambda channel: None))
    assert (meters.updates, meters.env_steps) == (100, 500)
    with pytest.raises(BrokenPipeError):  # and what comes later is not taken
        theirs.send(report.pack())
    theirs.close()


@pytest.mark.parametrize(
    ("workers", "expected"), [(1, [{3}]), (2, [{3}, {5}]), (4, [{3}, {5}, {3}, {5}]), (3, [None] * 3)]
)
def test_workers_get_a_core_each_where_all_can_have_one_alike(monkeypatch, workers, expected):
    given = []
    monkeypatch.setattr("os.getppid", lambda: 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5})
    monkeypatch.setattr("os.sched_setaffinity", lambda _, cores: given.append(cores))
    for index, cores in enumerate(expected):
        given.clear()
        stay_on_one_core(index, workers)
        assert given == ([cores] if cores else [])
