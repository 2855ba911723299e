"""Environments of ``case_envs`` that were silently not learnt, with the default options; each takes a minute or more.

Acting at random scores 5, the optimum is 10.
"""

from collections import deque

import pytest

import ga3c

STEPS = 600_000
SOLVED = 9.5


@pytest.mark.long
@pytest.mark.parametrize(
    ("env", "options"),
    [
        ("Board-v0", {"mode": "ga3c"}),
        ("Board-v0", {"mode": "a2c"}),
        ("Intro-v0", {"mode": "ga3c"}),
        ("FloatPicture-v0", {"mode": "ga3c", "normalise_states": False}),
        ("Planes-v0", {"mode": "ga3c"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_the_bit_that_is_shown_is_learnt(tmp_path, env, options):
    last: deque[float] = deque(maxlen=100)
    solved_after = []

    def on_episode(episode):
        last.append(episode.episode_return)
        if len(last) == last.maxlen and sum(last) >= SOLVED * len(last):
            solved_after.append(episode.env_steps)
            return False
        return True

    run = ga3c.train(
        f"tests.case_envs:{env}", out=tmp_path / "run", total_steps=STEPS, on_episode=on_episode, **options
    )
    assert solved_after, f"{sum(last) / len(last):.2f} after {run.env_steps} steps"
    print(f"solved after {solved_after[0]:,} steps")
