"""The actor, called directly: its port and its environments are lists."""

import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from ga3c import actor
from ga3c.actor import Actor
from ga3c.channels import NO_SEGMENT, ChannelClosed
from ga3c.envs import EnvConfig, Episode, Step, make_env
from ga3c.slabs import ActorClock, Slab, SlabLayout, create_slab_memory


class Script:
    """One environment that plays back steps: (reward, terminated, truncated, game reward, game over)."""

    num_envs = 1

    def __init__(self, steps):
        self.steps = steps
        self.actions = []

    def reset(self):
        return np.zeros((1, 1), np.float32)

    def step(self, actions):
        self.actions.append(int(actions[0]))
        reward, terminated, truncated, game_reward, over = self.steps[len(self.actions) - 1]
        state = np.full((1, 1), len(self.actions), np.float32)
        return Step(state, np.float32([reward]), *(np.array([x]) for x in (terminated, truncated)),
                    np.float32([game_reward]), np.array([over]), terminated or truncated or over)  # fmt: skip


class Port:
    """Answers each request with the number of the request as the action; closes after ``limit``."""

    def __init__(self, slab, limit, leave_after=None):
        self.slab, self.limit = slab, limit
        self.leave_after = leave_after  # requests
        self.requests = []
        self.segments = iter(range(1000))

    @property
    def leaving(self):
        return self.leave_after is not None and len(self.requests) >= self.leave_after

    def acquire_segment(self):
        return next(self.segments) % self.slab.layout.segments

    def request_actions(self, segment, step, completed, episodes):
        self.requests.append((segment, step, completed, list(episodes)))
        self.slab.actions[segment, step] = len(self.requests)

    def wait_for_actions(self):
        if len(self.requests) > self.limit:
            raise ChannelClosed


def play(steps, t_max=2, segments=2, leave_after=None):
    layout = SlabLayout(segments, t_max, 1, (1,), "float32")
    fd = create_slab_memory(layout)
    slab = Slab(layout, fd)
    os.close(fd)
    port, env = Port(slab, len(steps), leave_after), Script(steps)
    Actor(env, slab, port).run()
    return slab, port, env


NOTHING = (0.0, False, False, 0.0, False)


def test_states_are_written_before_their_actions_are_asked_for_and_played():
    slab, port, env = play([NOTHING] * 4)
    assert [r[:3] for r in port.requests] == [
        (0, 0, NO_SEGMENT),
        (0, 1, NO_SEGMENT),
        (1, 0, 0),  # the first request of a rollout completes the one before
        (1, 1, NO_SEGMENT),
        (0, 0, 1),
    ]
    assert env.actions == [1, 2, 3, 4]
    np.testing.assert_array_equal(slab.observations[1, :, 0, 0], [2, 3])


def test_the_step_after_an_episodes_end_is_not_live_also_across_rollouts():
    end = (1.0, True, False, 1.0, True)
    slab, port, _ = play([NOTHING, end, NOTHING, NOTHING])
    np.testing.assert_array_equal(slab.terminated[0, :, 0], [False, True])
    np.testing.assert_array_equal(slab.live[1, :, 0], [False, True])
    assert port.requests[2][3] == [Episode(1.0, 2)]
    assert all(not r[3] for i, r in enumerate(port.requests) if i != 2)


def test_a_step_that_resets_cannot_end_an_episode():
    end = (0.0, False, True, 0.0, True)
    slab, _, _ = play([end, (0.0, False, True, 0.0, False), NOTHING, NOTHING])
    np.testing.assert_array_equal(slab.truncated[0, :, 0], [True, False])
    np.testing.assert_array_equal(slab.live[1, :, 0], [True, True])


def test_a_game_that_ends_silently_at_a_reset_is_counted_with_its_own_score():
    life = (0.0, True, False, 3.0, False)
    silent = (0.0, False, False, 0.0, True)
    scored = (0.0, True, False, 5.0, True)
    _, port, _ = play([life, silent, scored, NOTHING])
    episodes = [e for r in port.requests for e in r[3]]
    assert episodes == [Episode(3.0, 1), Episode(5.0, 1)]


def test_games_that_end_in_the_noops_after_a_lost_life_are_counted():
    """EnvPool starts a new game there without a word, but for the lives, which rise."""

    class Counting:
        num_envs = 16

        def __init__(self):
            self.env = make_env(EnvConfig("RoadRunner-v5", episodic_life=True), list(range(100, 116)))
            self.over = 0
            self.silent = 0

        def reset(self):
            return self.env.reset()

        def step(self, actions):
            step = self.env.step(rng.integers(0, 18, 16))
            self.over += int(step.game_over.sum())
            self.silent += int((step.game_over & ~step.terminated & ~step.truncated).sum())
            return step

    rng = np.random.default_rng(0)
    env = Counting()
    layout = SlabLayout(2, 5, 16, (4, 84, 84), "uint8")
    fd = create_slab_memory(layout)
    slab = Slab(layout, fd)
    os.close(fd)
    port = Port(slab, 500)
    Actor(env, slab, port).run()
    assert env.silent > 0
    assert sum(len(r[3]) for r in port.requests) == env.over


def test_time_in_the_environment_is_not_called_waiting():
    class Slow(Script):
        def step(self, actions):
            time.sleep(0.02)
            return super().step(actions)

    layout = SlabLayout(2, 1, 1, (1,), "float32")
    fd = create_slab_memory(layout)
    slab = Slab(layout, fd)
    os.close(fd)
    Actor(Slow([NOTHING] * 10), slab, Port(slab, 10)).run()
    assert slab.clock[ActorClock.ENVIRONMENT] > 0.19
    assert slab.clock[ActorClock.SEGMENT] < 0.02


@pytest.mark.parametrize("leave_after", [1, 2])
def test_an_actor_that_is_asked_to_leave_completes_its_rollout_and_begins_no_other(leave_after):
    slab, port, env = play([NOTHING] * 10, leave_after=leave_after)
    assert [r[:3] for r in port.requests] == [(0, 0, NO_SEGMENT), (0, 1, NO_SEGMENT), (1, 0, 0)]
    assert len(env.actions) == 2
    assert slab.live[0].all()
    assert not slab.live[1, 0].any(), "what is not played is no step"


def test_an_actor_that_is_asked_to_leave_before_it_has_played_asks_for_nothing():
    _, port, env = play([NOTHING] * 4, leave_after=0)
    assert port.requests == env.actions == []


@pytest.mark.parametrize("at_once", [1, 2])
def test_the_first_actors_make_their_environments_in_turn_and_all_others_at_once_after_them(monkeypatch, at_once):
    made = os.memfd_create("made")
    learner, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(actor, "_made", lambda: made)
    spans = {}

    def make(index):
        with actor._in_turn(index, 3, at_once, end):
            began = time.monotonic()
            time.sleep(0.3)
            spans[index] = began, time.monotonic()

    makers = [threading.Thread(target=make, args=(index,)) for index in reversed(range(7))]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(20)
    os.close(made)
    learner.close()
    end.close()
    for index in range(3):
        at_its_beginning = [i for i, (began, ended) in spans.items() if began <= spans[index][0] < ended]
        assert len(at_its_beginning) <= at_once, (index, spans)
    others = [spans[index] for index in range(3 + at_once - 1, 7)]
    assert min(began for began, _ in others) >= max(spans[index][1] for index in range(3)) - 1e-3
    assert max(began for began, _ in others) < min(ended for _, ended in others), "the others take turns"


def test_an_actor_process_has_no_torch():
    code = """
import sys, ga3c.forking, ga3c.actor
from ga3c.envs import EnvConfig, env_spec, make_env
ga3c.actor.prepare()
for env in (EnvConfig("Pong-v5"), EnvConfig("CartPole-v1", backend="gymnasium")):
    env_spec(env)
    make_env(env, [1]).reset()
sys.exit(any(name.split(".")[0] == "torch" for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("count", [1, 3])
def test_every_environment_has_its_own_score(count):
    env = make_env(EnvConfig("tests.tiny_envs:TerminalReward-v0"), list(range(count)))
    layout = SlabLayout(2, 3, count, (3,), "float32")
    fd = create_slab_memory(layout)
    slab = Slab(layout, fd)
    os.close(fd)

    class Ones(Port):
        def request_actions(self, segment, step, completed, episodes):
            super().request_actions(segment, step, completed, episodes)
            self.slab.actions[segment, step] = 1

    port = Ones(slab, 12)
    Actor(env, slab, port).run()
    env.close()
    assert [e for r in port.requests for e in r[3]] == [Episode(1.0, 3)] * (3 * count)
