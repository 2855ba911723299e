"""Counts that change while a run trains: the walks by themselves, on a clock of the test's, and in a run."""

import dataclasses
import random
import re
import time

import pytest

from ga3c.build import build_model
from ga3c.checkpoint import Progress
from ga3c.dynamic import Adjuster, Counts, climb, paper_walk
from ga3c.envs import EnvConfig, env_spec
from ga3c.ga3c import Ga3c
from ga3c.metrics import Meters
from ga3c.presets import default_config
from ga3c.system import Context
from tests.running import SMALL, ga3c, metrics

ONE, MOST = Counts(1, 1, 1), Counts(16, 4, 4)


def rate(counts):
    """Samples a second of a machine that is fastest with 6 actors, 1 predictor and 2 trainers."""
    share = min(1.0, (counts.actors / 6) ** 0.7) - 0.05 * max(0, counts.actors - 6)
    return 1000 * share * (1 - 0.06 * (counts.predictors - 1) - 0.1 * abs(counts.trainers - 2))


def walked(walk, measure, stays):
    """The counts of each stay."""
    stay, seen = next(walk), []
    for _ in range(stays):
        seen.append(stay.counts)
        stay = walk.send(measure(stay.counts))
    return seen


def test_the_climb_comes_from_one_of_each_to_the_best():
    draw = random.Random(1)
    seen = walked(climb(ONE, MOST), lambda counts: rate(counts) * draw.gauss(1, 0.02), 400)
    assert rate(seen[-1]) >= 0.9 * rate(Counts(6, 1, 2))


def test_a_climb_that_has_found_its_place_stays_there():
    draw = random.Random(2)
    seen = walked(climb(ONE, MOST), lambda counts: rate(counts) * draw.gauss(1, 0.02), 1000)
    late = seen[500:]
    place = max(set(late), key=late.count)
    assert late.count(place) > 0.6 * len(late)
    assert max(abs(counts.actors - place.actors) for counts in late) <= 2


def test_a_climb_takes_noise_for_noise():
    draw = random.Random(3)
    seen = walked(climb(Counts(4, 1, 1), MOST), lambda counts: 1000 * draw.gauss(1, 0.05), 600)
    assert len(set(seen[-60:])) <= 7  # its place, and one step around it
    assert all(abs(counts.actors - 4) <= 3 for counts in seen)


def test_a_climb_looks_around_again_when_the_rate_has_changed_by_itself():
    walk = climb(Counts(6, 1, 2), MOST)
    settled = walked(walk, rate, 60)
    assert settled[-1] == Counts(6, 1, 2)
    walk = climb(Counts(6, 1, 2), MOST)
    calls = iter(range(10**6))
    seen = walked(walk, lambda counts: rate(counts) if next(calls) < 60 else 50.0 * counts.actors, 300)
    assert seen[-1].actors > 6


def test_the_papers_walk_takes_back_what_was_slower_and_never_goes_below_one():
    seen = walked(paper_walk(ONE, MOST, random.Random(1)), rate, 300)
    assert all(min(counts) >= 1 for counts in seen)
    assert all(max(map(abs, (a - b for a, b in zip(x, y, strict=True)))) <= 2 for x, y in zip(seen, seen[1:]))  # noqa: RUF007, B905
    assert max(map(rate, seen)) > 0.9 * rate(Counts(6, 1, 2))


def test_rates_are_of_the_time_after_a_change_has_settled():
    told, applied, samples = [], [], [0]

    def walk():
        counts = ONE
        while True:
            told.append((yield type("Stay", (), {"counts": counts, "seconds": 2.0})()))
            counts = counts._replace(actors=counts.actors + 1)

    adjuster = Adjuster(walk(), applied.append, lambda: samples[0])
    adjuster.tick(0.0)
    for step in range(1, 100):
        samples[0] += 10 if step < 20 else 100  # in a tenth of a second
        adjuster.tick(step / 10)
    assert applied[:2] == [Counts(2, 1, 1), Counts(3, 1, 1)]
    assert told[-1] == pytest.approx(1000, rel=0.01)


def test_what_a_suspension_takes_is_in_no_rate():
    """The walk's clock is the run's own, which stands still with it."""
    spec = env_spec(EnvConfig("CartPole-v1"))
    config = dataclasses.replace(
        default_config("ga3c", "fast", spec, cuda=False), device="cpu", dynamic="climb", actors=1, envs_per_actor=1
    )
    model, _ = build_model(config, spec)
    meters, ticks = Meters(1), []
    system = Ga3c(Context(config, spec, model, meters, lambda: 0.0, lambda text: None, Progress()))
    try:
        system._adjuster.tick = ticks.append
        system.tick()
        time.sleep(0.5)
        meters.suspended(0.5)
        system.tick()
    finally:
        system.stop()
    assert 0 <= ticks[1] - ticks[0] < 0.4


@pytest.mark.parametrize("dynamic", [["--dynamic"], ["--dynamic", "paper"]])
def test_a_run_changes_its_counts_and_loses_nothing(tmp_path, dynamic):
    run = ga3c("train", "CartPole-v1", "--minutes", "0.6", *dynamic, "--out", "run", *SMALL, "--actors", "1",
               cwd=tmp_path)  # fmt: skip
    assert run.returncode == 0, run.err
    lines = metrics(tmp_path / "run", "rates")
    assert len({(line["actors"], line["predictors"], line["trainers"]) for line in lines}) > 1
    [totals] = metrics(tmp_path / "run", "totals")
    accounted = totals["samples_trained"] + sum(totals["samples_dropped"].values()) + totals["samples_in_flight"]
    assert accounted == totals["env_steps"]
    assert totals["samples_dropped"] == {}
    assert not re.search("was replaced|failed", run.out + run.err)
