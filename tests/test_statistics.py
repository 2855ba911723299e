import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ga3c.agents import Score, group_runs, score_agents, seeds_of_games
from ga3c.config import TrainConfig
from ga3c.statistics import aggregate, bootstrap, mean_curve, over_seeds

PONG = TrainConfig(env="Pong-v5")
FEW = settings(max_examples=25, deadline=None, derandomize=True, database=None)
SCORES = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.floats(-100, 100), min_size=2, max_size=6), min_size=1, max_size=3
)


def values(estimates):
    return {name: estimate.value for name, estimate in estimates.items()}


def slow_interquartile_mean(scores):
    """By its definition: a quarter of the scores, rounded down, is cut at each end."""
    ordered = sorted(score for runs in scores.values() for score in runs)
    cut = len(ordered) // 4
    return sum(ordered[cut : len(ordered) - cut]) / (len(ordered) - 2 * cut)


def test_the_interquartile_mean_is_of_the_middle_half_of_all_runs_of_all_games():
    assert aggregate({"a": [1, 2, 3, 4], "b": [5, 6, 7, 8]})["interquartile_mean"].value == 4.5  # of 3, 4, 5, 6
    assert aggregate({"a": [-900, 2, 3, 4], "b": [5, 6, 7, 8000]})["interquartile_mean"].value == 4.5


def test_median_and_mean_are_of_the_games_means():
    found = values(aggregate({"a": [0, 2], "b": [2, 2], "c": [8, 10]}))  # 1, 2, 9
    assert (found["median"], found["mean"]) == (2, 4)


def test_over_the_seeds_of_one_game_the_median_is_of_the_runs():
    assert values(over_seeds([1, 2, 9])) == {"interquartile_mean": 4, "median": 2, "mean": 4}


def test_runs_are_drawn_again_within_each_game_and_never_across_games():
    found = aggregate({"easy": [100.0, 100.0, 100.0], "hard": [0.0, 0.0, 0.0]})
    assert found["mean"] == (50, 50, 50)
    assert found["median"] == (50, 50, 50)


def test_the_interval_of_two_runs_is_their_range():
    assert over_seeds([3.0, 5.0])["mean"] == (4.0, 3.0, 5.0)


def test_the_interval_of_a_mean_is_that_of_its_error_where_there_are_many_runs():
    runs = np.random.default_rng(1).normal(10.0, 2.0, 400)
    found = over_seeds(runs.tolist())["mean"]
    error = runs.std() / np.sqrt(400)
    assert found.low == pytest.approx(runs.mean() - 1.96 * error, abs=0.3 * error)
    assert found.high == pytest.approx(runs.mean() + 1.96 * error, abs=0.3 * error)


def test_a_game_with_a_single_run_leaves_no_interval():
    for estimate in aggregate({"a": [1.0], "b": [1.0, 2.0]}).values():
        assert estimate[1:] == (None, None)
    assert aggregate({"a": [1.0]})["mean"].words(".1f") == "1.0"


@FEW
@given(SCORES)
def test_an_interval_lies_within_the_scores_and_is_the_same_at_every_call(scores):
    found = aggregate(scores)
    assert found["interquartile_mean"].value == pytest.approx(slow_interquartile_mean(scores))
    everything = [score for runs in scores.values() for score in runs]
    for value, low, high in found.values():
        assert min(everything) - 1e-9 <= low <= high <= max(everything) + 1e-9
        assert min(everything) - 1e-9 <= value <= max(everything) + 1e-9
    assert aggregate(scores) == found


@FEW
@given(SCORES, st.floats(0.5, 20), st.floats(-50, 50))
def test_another_scale_of_the_scores_is_another_scale_of_the_estimates(scores, factor, shift):
    scaled = {game: [factor * score + shift for score in runs] for game, runs in scores.items()}
    for name, estimate in aggregate(scores).items():
        expected = [factor * figure + shift for figure in estimate]
        assert list(aggregate(scaled)[name]) == pytest.approx(expected, abs=1e-6)


def test_a_bootstrap_of_curves_has_an_interval_at_each_point():
    low, high = bootstrap([np.array([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]])], np.mean)
    assert low[0] < 2 < high[0]
    assert low[1] == high[1] == 5


def test_a_mean_curve_goes_as_far_as_all_of_its_curves():
    short = (np.array([0.0, 10.0]), np.array([0.0, 10.0]))
    long = (np.array([2.0, 30.0]), np.array([4.0, 4.0]))
    found = mean_curve([short, long])
    assert (found.x[0], found.x[-1]) == (2, 10)
    assert found.mean[-1] == 7
    assert (found.low[-1], found.high[-1]) == (4, 10)
    assert mean_curve([short]).low is None
    assert mean_curve([short, (np.array([11.0, 12.0]), np.array([0.0, 1.0]))]) is None


def test_runs_that_differ_in_their_seeds_alone_are_one_group():
    runs = [dataclasses.replace(PONG, seed=seed, keep=seed) for seed in (1, 2)]
    [group] = group_runs(runs, lambda run: run)
    assert group.members == tuple(runs)
    assert group.name == "Pong-v5, GA3C small, fast"


def test_a_groups_name_says_what_tells_it_from_another():
    runs = [PONG, dataclasses.replace(PONG, learning_rate=0.01), dataclasses.replace(PONG, mode="a2c")]
    names = [group.agent for group in group_runs(runs, lambda run: run)]
    assert names == [
        "GA3C small, fast, learning rate 0.0007",
        "GA3C small, fast, learning rate 0.01",
        "A2C small, fast",
    ]


def test_an_agents_scores_are_told_by_game_and_over_those_whose_references_are_known():
    cart = dataclasses.replace(PONG, env="CartPole-v1")
    breakout = dataclasses.replace(PONG, env="Breakout-v5")
    scores = [Score(PONG, 20.0, 1.1), Score(PONG, 18.0, 1.0), Score(cart, 500.0, None), Score(breakout, 30.0, 1.2)]
    [agent] = score_agents([*scores, Score(breakout, 60.0, 2.0)])
    assert agent.games["CartPole-v1"] == (500.0,)
    assert agent.by_game()["Pong-v5"]["mean"] == (19.0, 18.0, 20.0)
    assert agent.over_games()["mean"].value == pytest.approx((1.05 + 1.6) / 2)
    assert seeds_of_games(agent.normalised) == "2 seeds of 2 games"
    assert seeds_of_games({"Pong-v5": (1.0, 2.0, 3.0)}) == "3 seeds of 1 game"
    assert seeds_of_games({"a": (1.0,), "b": (1.0, 2.0)}) == "1 to 2 seeds of 2 games"
    plain = agent.to_json()
    assert plain["games"]["Pong-v5"]["runs"] == 2
    assert plain["human_normalised"]["games"] == 2


def test_whoever_has_other_settings_in_another_game_is_another_agent():
    slow, fast = (dataclasses.replace(PONG, learning_rate=rate) for rate in (1e-4, 1e-2))
    elsewhere = dataclasses.replace(fast, env="Breakout-v5")
    agents = score_agents([Score(slow, 18.0, 1.0), Score(fast, 20.0, 1.1), Score(elsewhere, 60.0, 2.0)])
    assert [set(agent.games) for agent in agents] == [{"Pong-v5"}, {"Pong-v5", "Breakout-v5"}]
    assert [agent.agent.rpartition(", ")[2] for agent in agents] == ["learning rate 0.0001", "learning rate 0.01"]
    assert len(score_agents([Score(slow, 18.0, 1.0), Score(elsewhere, 60.0, 2.0)])) == 2
