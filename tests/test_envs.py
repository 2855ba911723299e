import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from ga3c.envs import EnvConfig, Player, Step, env_seeds, env_spec, make_env
from ga3c.errors import UsageError

PONG = EnvConfig("Pong-v5")


def play(config, steps, seeds=(1, 2), actions=None):
    env = make_env(config, list(seeds))
    rng = np.random.default_rng(0)
    states, trace = [env.reset().copy()], []
    for _ in range(steps):
        chosen = rng.integers(0, actions or 2, len(seeds))
        step = env.step(chosen)
        trace.append(type(step)(*(np.copy(field) for field in step)))
        states.append(trace[-1].states)
    env.close()
    return states, trace


def test_pong_has_the_usual_treatment():
    spec = env_spec(PONG)
    assert (spec.backend, spec.observation_shape, spec.observation_dtype) == ("envpool", (4, 84, 84), "uint8")
    assert (spec.num_actions, spec.frames_per_step, spec.game) == (6, 4, "pong")
    for words in (
        "frame skip 4",
        "4 grey 84x84",
        "0 to 29 no-ops, then FIRE",
        "sticky actions 0;",
        "clipped to [-1, 1]",
    ):
        assert words in spec.protocol


def test_an_ale_id_means_sticky_actions_on_envpool_unless_it_is_said_otherwise():
    assert "sticky actions 0.25" in env_spec(EnvConfig("ALE/Pong-v5")).protocol
    assert "sticky actions 0;" in env_spec(EnvConfig("ALE/Pong-v5", sticky_actions=0.0)).protocol
    assert env_spec(EnvConfig("ALE/Pong-v5")).id == "Pong-v5"


def test_no_noops_do_not_crash_envpool():
    states, _ = play(dataclasses.replace(PONG, noop_max=0), steps=2)
    assert np.isfinite(states[-1]).all()
    assert "0 to 0 no-ops" in env_spec(dataclasses.replace(PONG, noop_max=0)).protocol


def test_games_differ_between_seeds_and_repeat_with_them():
    config = EnvConfig("CartPole-v1")
    first, again, other = (play(config, 3, seeds)[0][0] for seeds in ((1, 2), (1, 2), (3, 4)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, other)


def test_actors_share_no_environment_seed():
    seeds = [s for seed in (1, 2) for actor in range(64) for s in env_seeds(seed, actor, actor + 1, 16)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize(
    "config",
    [EnvConfig("CartPole-v1"), EnvConfig("CartPole-v1", backend="gymnasium"), EnvConfig("tests.tiny_envs:Identity-v0")],
)
def test_the_step_after_an_episode_only_resets(config):
    _, trace = play(config, 120)
    ends = [(t, k) for t, step in enumerate(trace[:-1]) for k in range(2) if step.terminated[k]]
    assert ends
    for t, k in ends:
        after = trace[t + 1]
        assert after.rewards[k] == 0
        assert not after.terminated[k]
        assert not after.truncated[k]
        assert trace[t].game_over[k]
        assert not after.game_over[k]


def test_scores_are_not_clipped():
    _, trace = play(EnvConfig("SpaceInvaders-v5"), 300, actions=6)
    assert max(step.game_rewards.max() for step in trace) > 1
    assert max(step.rewards.max() for step in trace) == 1


def test_a_lost_life_ends_an_episode_but_not_a_game():
    config = EnvConfig("Breakout-v5", episodic_life=True)
    _, trace = play(config, 600, actions=4)
    lost = sum(int(step.terminated.sum()) for step in trace)
    over = sum(int(step.game_over.sum()) for step in trace)
    assert lost > over > 0
    assert lost >= 5 * over - 4


@pytest.mark.parametrize("game", ["Breakout-v5", "Pong-v5", "CartPole-v1"])
def test_a_step_says_what_envpool_says(game):
    import envpool

    atari = game != "CartPole-v1"
    seeds = [3, 4, 5, 6]
    env = make_env(EnvConfig(game, episodic_life=atari), seeds)
    lives = {"episodic_life": True, "reward_clip": True, "use_fire_reset": True} if atari else {}
    raw = envpool.make_gymnasium(game, num_envs=4, num_threads=1, env_seed=seeds, seed=3, **lives)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(env.reset(), raw.reset()[0].astype(np.float32 if not atari else np.uint8))
    ended = np.zeros(4, np.bool_)
    resets = 0
    for _ in range(1200):
        actions = rng.integers(0, 2, 4)
        step = env.step(actions)
        states, rewards, terminated, truncated, info = raw.step(actions)
        np.testing.assert_array_equal(step.states, states.astype(step.states.dtype))
        np.testing.assert_array_equal(step.rewards, rewards)
        np.testing.assert_array_equal(step.terminated, terminated & ~truncated)
        np.testing.assert_array_equal(step.truncated, truncated)
        np.testing.assert_array_equal(step.game_rewards, info["reward"] if atari else rewards)
        over = (info["terminated"] != 0) | truncated if atari else terminated | truncated
        # A game that was over before this step may be so again: what a silent restart is, test_actor says.
        assert (step.game_over >= over).all()
        assert not (step.game_over & ~over & ~ended).any()
        assert step.any_ended or not (step.terminated | step.truncated | step.game_over).any()
        resets += int(ended.sum())
        ended = (terminated | truncated) & ~ended
    assert resets > 0
    env.close()
    raw.close()


def test_the_thread_that_makes_envpools_buffers_gives_way_and_those_that_play_do_not():
    def threads():
        return {int(name) for name in os.listdir("/proc/self/task")}

    def cpu_ns(thread):
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0])

    earlier = threads()
    env = make_env(EnvConfig("Pong-v5"), [1, 2], in_worker=True)
    env.reset()
    policies = {thread: os.sched_getscheduler(thread) for thread in threads() - earlier}
    before = {thread: cpu_ns(thread) for thread in policies}
    for _ in range(200):
        env.step(np.zeros(2, np.int64))
    spent = {thread: cpu_ns(thread) - before[thread] for thread in policies}
    (maker,) = (thread for thread, policy in policies.items() if policy == os.SCHED_IDLE)
    busiest = max(spent, key=lambda thread: spent[thread])
    assert policies[busiest] == os.SCHED_OTHER
    assert spent[maker] < 0.5 * spent[busiest], "it is another thread that makes the buffers"
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    env.close()


def test_no_thread_of_the_learners_own_environments_gives_way():
    earlier = set(os.listdir("/proc/self/task"))
    env = make_env(EnvConfig("Pong-v5"), [1, 2], threads=2)
    policies = [os.sched_getscheduler(int(name)) for name in set(os.listdir("/proc/self/task")) - earlier]
    env.close()
    assert len(policies) >= 3
    assert os.SCHED_IDLE not in policies


class Scripted:
    """Steps that end however they like, at steps that reset too."""

    num_envs = 5

    def __init__(self, draw):
        self.draw = draw

    def reset(self):
        return np.zeros((5, 1), np.float32)

    def step(self, actions):
        seldom = self.draw.random() < 0.8
        terminated, truncated, over = (self.draw.random(5) < (0.0 if seldom else 0.3) for _ in range(3))
        rewards = self.draw.normal(size=5).astype(np.float32)
        any_ended = bool((terminated | truncated).any())
        over &= terminated
        return Step(np.zeros((5, 1), np.float32), rewards, terminated, truncated, rewards, over, any_ended)


def test_a_player_keeps_the_account_that_a_plain_count_keeps():
    draw, again = np.random.default_rng(4), np.random.default_rng(4)
    player, raw = Player(Scripted(draw)), Scripted(again)
    live, returns, lengths, games = np.ones(5, np.bool_), np.zeros(5), np.zeros(5, np.int64), []
    for _ in range(3000):
        np.testing.assert_array_equal(player.live, live)
        step, plain = player.step(np.zeros(5, np.int64)), raw.step(None)
        terminated, truncated = plain.terminated & live, plain.truncated & live
        np.testing.assert_array_equal(step.terminated, terminated)
        np.testing.assert_array_equal(step.truncated, truncated)
        returns += plain.game_rewards
        lengths += live
        for k in np.flatnonzero(plain.game_over):
            games.append((returns[k], lengths[k]))
            returns[k] = lengths[k] = 0
        live = ~(terminated | truncated)
    assert len(games) > 100
    assert player.episodes == games


def test_a_life_that_is_won_does_not_end_a_game():
    """Atlantis gives lives away in the middle of play."""
    import envpool

    seeds = list(range(8))
    env = make_env(EnvConfig("Atlantis-v5"), seeds)
    raw = envpool.make_gymnasium("Atlantis-v5", num_envs=8, num_threads=1, env_seed=seeds, seed=0)
    rng = np.random.default_rng(0)
    env.reset()
    _, info = raw.reset()
    lives, won = info["lives"], 0
    for _ in range(1500):
        actions = rng.integers(0, 4, 8)
        step = env.step(actions)
        np.testing.assert_array_equal(step.game_over, step.terminated | step.truncated)
        info = raw.step(actions)[-1]
        won += int(((info["lives"] > lives) & (lives > 0)).sum())
        lives = info["lives"]
    env.close()
    raw.close()
    assert won > 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (EnvConfig("Pnog-v5"), "nearest: Pong-v5"),
        (EnvConfig("Pnog-v5", backend="envpool"), "EnvPool has no environment 'Pnog-v5'; nearest: Pong-v5"),
        (EnvConfig("CartPol-v1", backend="gymnasium"), "nearest: CartPole-v1"),
        (EnvConfig("nomodule:Own-v0"), "importing 'nomodule' gave ModuleNotFoundError"),
        (EnvConfig("tests.tiny_envs:Continuous-v0"), "Discrete actions are needed"),
        (EnvConfig("Pendulum-v1"), "Discrete actions are needed"),
        (EnvConfig("FrozenLake-v1", backend="gymnasium"), "a Box is needed"),
        (EnvConfig("CartPole-v1", backend="gymnasium", episodic_life=True), "--episodic-life needs"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_sentence(config, words):
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        env_spec(config)


def test_a_module_of_the_users_own_is_imported_first():
    spec = env_spec(EnvConfig("tests.tiny_envs:Identity-v0"))
    assert (spec.backend, spec.observation_shape, spec.num_actions) == ("gymnasium", (4,), 4)


def test_an_autoreset_mode_that_is_not_handled_is_refused(monkeypatch):
    import gymnasium
    from gymnasium.vector import AutoresetMode

    class SameStep(gymnasium.vector.SyncVectorEnv):
        def __init__(self, fns, autoreset_mode, **kwargs):
            super().__init__(fns, autoreset_mode=AutoresetMode.SAME_STEP, **kwargs)

    monkeypatch.setattr(gymnasium.vector, "SyncVectorEnv", SameStep)
    with pytest.raises(UsageError, match="SAME_STEP"):
        make_env(EnvConfig("CartPole-v1", backend="gymnasium"), [1])


@pytest.mark.parametrize("backend", ["envpool", "gymnasium"])
def test_both_backends_play_atari_alike(backend):
    if backend == "gymnasium":
        pytest.importorskip("ale_py")
        pytest.importorskip("cv2")
    config = EnvConfig("ALE/Pong-v5", backend=backend)
    spec = env_spec(config)
    assert (spec.backend, spec.observation_shape, spec.num_actions, spec.game) == (backend, (4, 84, 84), 6, "pong")
    states, trace = play(config, 30, actions=6)
    assert states[0].dtype == np.uint8
    assert states[0].shape == (2, 4, 84, 84)
    assert trace[-1].game_rewards.dtype == np.float32
    assert 80 < states[-1].mean() < 120  # Pong's brown, in grey
