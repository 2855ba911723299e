"""Small environments that are solved in seconds, each of which fails if a known trap comes back."""

import dataclasses
import threading
import time

import numpy as np
import pytest
import torch

from ga3c.build import build_model
from ga3c.checkpoint import Progress
from ga3c.envs import env_spec
from ga3c.ga3c import Ga3c
from ga3c.metrics import Meters
from ga3c.presets import default_config
from ga3c.system import Context

SETTINGS = {
    "actors": 2, "envs_per_actor": 4, "t_max": 6, "min_training_batch": 24, "learning_rate": 3e-3, "anneal": False,
    "entropy_cost": 0.0, "max_grad_norm": 0.0, "discount": 0.9, "gae_lambda": 1.0, "device": "cpu",
}  # fmt: skip


def train(env, until, timeout=60, **changes):
    """Trains until ``until(model, meters)`` holds; returns the model, and whether it did in time."""
    config = default_config("ga3c", "fast", env_spec(env_config(env)), cuda=False)
    config = dataclasses.replace(config, env=env, **(SETTINGS | changes))
    spec = env_spec(config.env_config())
    model, _ = build_model(config, spec)
    meters = Meters(1)
    system = Ga3c(Context(config, spec, model, meters, lambda: config.learning_rate, lambda text: None, Progress()))
    system.start()
    deadline = time.monotonic() + timeout
    try:
        while not (reached := until(model, meters)) and time.monotonic() < deadline and not system.failure:
            time.sleep(0.05)
    finally:
        system.stop()
    assert system.failure is None, system.failure
    assert not [t for t in threading.enumerate() if t.name.split()[0] in ("predictor", "trainer", "actor")]
    return model, reached


def env_config(env):
    from ga3c.envs import EnvConfig

    return EnvConfig(env)


def mean_return_above(bound):
    return lambda model, meters: (meters.episode_return_mean or 0.0) > bound


def test_a_reward_that_comes_with_the_terminal_step_is_learnt():
    """The original dropped the terminal transition, and its reward with it."""
    _, solved = train("tests.tiny_envs:TerminalReward-v0", mean_return_above(0.95))
    assert solved


def test_an_observation_is_answered_with_its_identity():
    """Fails when a reply reaches another state than the one that asked, or a batch mixes up its rows."""
    _, solved = train("tests.tiny_envs:Identity-v0", mean_return_above(9.3))
    assert solved


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_convolutions_learn_in_full_and_in_reduced_precision(precision):
    """The losses are float32 in both; weights, gradients and statistics too."""
    model, solved = train(
        "tests.tiny_envs:ImageIdentity-v0", mean_return_above(9.3), timeout=100, precision=precision, learning_rate=1e-3
    )
    assert solved
    assert model.precision == precision
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}


def test_truncation_bootstraps_and_the_step_that_only_resets_is_not_learnt_from():
    """Reward 1 for ever, cut every 5 steps: V = 1 / (1 - 0.9) = 10.

    V would be about 3 if truncation ended the return like a terminal step; and about 8 if the reset steps, which pay
    nothing, were trained on.
    """

    def value(model):
        return float(model.predict(torch.ones(1, 1)).values[0])

    model, reached = train("tests.tiny_envs:OnlyTruncation-v0", lambda model, _: value(model) > 9.7)
    assert reached, value(model)
    assert value(model) < 10.5


@pytest.mark.parametrize("counts", [(1, 1), (3, 2)])
def test_roles_can_be_added_and_removed_while_it_runs(counts):
    predictors, trainers = counts
    config = default_config("ga3c", "fast", env_spec(env_config("CartPole-v1")), cuda=False)
    config = dataclasses.replace(config, env="CartPole-v1", **(SETTINGS | {"min_training_batch": 0}))
    spec = env_spec(config.env_config())
    model, _ = build_model(config, spec)
    meters = Meters(1)
    system = Ga3c(Context(config, spec, model, meters, lambda: 1e-3, lambda text: None, Progress()))
    system.start()

    def goes_on():
        updates, steps = meters.updates, meters.env_steps
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if meters.updates > updates + 5 and meters.env_steps > steps + 100:
                return True
            time.sleep(0.05)
        return False

    try:
        assert goes_on()
        for actors in (5, 1, 3):
            system.actors.set_count(actors)
            system.predictors.set_count(predictors)
            system.trainers.set_count(trainers)
            assert goes_on()
            deadline = time.monotonic() + 10
            while len(system.actors.pids()) != actors and time.monotonic() < deadline:
                time.sleep(0.05)
            assert len(system.actors) == len(system.actors.pids()) == actors
            assert (len(system.predictors), len(system.trainers)) == counts
    finally:
        system.stop()
    assert system.failure is None
    account = system.account()
    assert account.dropped == {}, "those that left took steps with them"
    assert meters.env_steps == meters.samples + account.in_flight


def test_evaluation_plays_each_environments_share_of_whole_games():
    from ga3c.envs import EnvConfig, env_seeds, make_env
    from ga3c.evaluate import play

    class First:
        def act(self, states, *, greedy):
            return np.ones(len(states), np.int64)

    env = make_env(EnvConfig("tests.tiny_envs:TerminalReward-v0"), env_seeds(1, 0, 0, 4))
    games = play(First(), env, 10, greedy=False)
    env.close()
    assert [(game.episode_return, game.length, game.is_cut) for game in games] == [(1.0, 3, False)] * 10
    assert [game.env for game in games] == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]


def test_human_normalised_scores_are_those_of_the_table():
    from ga3c.statistics import human_normalised

    pong = env_spec(env_config("Pong-v5")).game
    assert human_normalised(pong, -20.7) == pytest.approx(0.0)
    assert human_normalised(pong, 14.6) == pytest.approx(1.0)
    assert human_normalised(env_spec(env_config("CartPole-v1")).game, 500.0) is None
