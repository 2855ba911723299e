"""The words on what holds a run back, from figures made up for each case."""

import time

import pytest
from rich.console import Console

from ga3c.bottleneck import find_bottleneck
from ga3c.display import draw_panel
from ga3c.machine import CoreClock
from ga3c.metrics import Meters


def rates(*, actor=0.5, predictor=0.5, trainer=0.5, cores=0.5, segments=0.0):
    """Shares of the time that each role works, and that the cores are busy."""
    return {
        "cores_busy_share": cores,
        "actor_wait_share": 1 - actor,
        "predictor_wait_share": 1 - predictor,
        "trainer_wait_share": 1 - trainer,
        "role_seconds": {
            "actor": {
                "environment": actor,
                "waiting_for_predictions": 1 - actor - segments,
                "waiting_for_segments": segments,
            },
            "predictor": {"inference": predictor, "waiting": 1 - predictor},
            "trainer": {"training": trainer, "waiting": 1 - trainer},
        },
    }


@pytest.mark.parametrize(
    ("figures", "on_cpu", "what", "why"),
    [
        (rates(actor=0.9, cores=0.98), False, "the environments", "all cores are busy stepping"),
        (rates(actor=0.9, cores=0.6), False, "the environments", "cores are idle 40%"),
        (rates(actor=0.3, predictor=0.95), False, "predictions", "predictors are busy 95%"),
        (rates(actor=0.3, trainer=0.97), False, "training", "trainers are busy 97%"),
        (rates(actor=0.3, segments=0.6), False, "training", "actors wait for them 60%"),
        (rates(actor=0.3, cores=0.4), False, "too few games", "cores are idle 60%"),
        (rates(actor=0.9, predictor=0.2, trainer=0.3, cores=0.99), True, "the environments", "take 64% of that"),
        (rates(actor=0.2, predictor=0.2, trainer=0.9, cores=0.99), True, "training", "the environments 15%"),
        (rates(actor=0.2, predictor=0.9, trainer=0.3, cores=0.99), True, "predictions", "cores are 99% busy"),
    ],
)
def test_what_holds_a_run_back_is_said_with_its_reason(figures, on_cpu, what, why):
    found = find_bottleneck(figures, on_cpu=on_cpu)
    assert found.what == what
    assert why in str(found)
    assert found.change


def test_nothing_is_said_where_the_figures_do_not_say():
    assert find_bottleneck(Meters(1).rates(), on_cpu=True) is None
    assert find_bottleneck(rates() | {"role_seconds": {"worker": {"training": 1.0}}}, on_cpu=True) is None
    assert find_bottleneck(rates(cores=None), on_cpu=True) is None


def test_nothing_is_said_while_actors_make_their_environments():
    counts = {"actors": 4, "actors_playing": 4}
    assert find_bottleneck(rates(cores=1.0) | counts, on_cpu=True) is not None
    assert find_bottleneck(rates(cores=1.0) | counts | {"actors_playing": 2}, on_cpu=True) is None


def test_the_panel_shows_it():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    figures = Meters(1).rates() | rates(actor=0.3, trainer=0.97)
    console.print(draw_panel("ga3c", figures, None, None, on_cpu=False))
    console.file.close()
    assert "held back by training: trainers are busy 97% of the time" in console.export_text()


def test_busy_cores_are_seen():
    clock = CoreClock()
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        pass
    assert 0.2 < clock.busy_share() <= 1.0
