import json

import pytest

from ga3c.envs import Episode
from ga3c.metrics import Meters, UpdateFigures
from ga3c.metrics_writer import MetricsWriter

RATES = {
    "time_s", "env_steps", "frames", "updates", "pps", "tps", "training_samples_per_s", "policy_lag_mean",
    "policy_lag_max", "prediction_batch_mean", "training_batch_mean", "prediction_queue_depth",
    "training_queue_depth", "policy_loss", "value_loss", "entropy", "learning_rate", "episode_return_mean",
}  # fmt: skip


def figures(samples=10, **changes):
    fields = {"policy_loss": 1.0, "value_loss": 2.0, "entropy": 0.5, "gradient_norm": 3.0, "learning_rate": 1e-3}
    return UpdateFigures(samples=samples, **(fields | {"lags": {2: samples}} | changes))


def test_a_rates_line_has_every_promised_field_and_null_for_what_is_not_known():
    rates = Meters(4).rates()
    assert rates.keys() >= RATES | {"kind"}
    assert rates["kind"] == "rates"
    assert rates["pps"] == 0
    for name in ("policy_lag_mean", "policy_loss", "entropy", "episode_return_mean", "learning_rate"):
        assert rates[name] is None


def test_losses_are_means_a_sample_over_updates_of_different_sizes():
    meters = Meters(4)
    meters.updated(figures(samples=10, policy_loss=1.0, lags={1: 10}), 12)
    meters.updated(figures(samples=30, policy_loss=2.0, lags={1: 20, 2: 5, 9: 5}), 36)
    rates = meters.rates()
    assert rates["policy_loss"] == pytest.approx((10 * 1 + 30 * 2) / 40)
    assert rates["policy_lag_mean"] == pytest.approx((30 * 1 + 5 * 2 + 5 * 9) / 40)
    assert rates["policy_lag_histogram"] == {"1": 30, "2": 5, "9": 5}
    assert rates["policy_lag_max"] == 9
    assert rates["training_batch_mean"] == 24
    assert rates["updates"] == 2


def test_a_roles_seconds_add_up_and_give_the_share_that_it_waits():
    meters = Meters(4)
    meters.spent("trainer", waiting=1.0, copying=0.5, training=2.0)
    meters.spent("trainer", training=0.5)
    meters.spent("actor", environment=1.0, waiting_for_predictions=2.0, waiting_for_segments=1.0)
    rates = meters.rates()
    assert rates["role_seconds"]["trainer"] == {"waiting": 1.0, "copying": 0.5, "training": 2.5}
    assert rates["trainer_wait_share"] == pytest.approx(0.25)
    assert rates["actor_wait_share"] == pytest.approx(0.75)
    assert rates["predictor_wait_share"] is None


def test_pps_counts_live_steps_and_the_prediction_batch_counts_states():
    meters = Meters(4)
    meters.predicted(30, 32, [])
    meters.predicted(32, 32, [])
    assert meters.env_steps == 62
    rates = meters.rates()
    assert rates["frames"] == 248
    assert rates["prediction_batch_mean"] == 32
    assert rates["pps"] > 0


def test_a_window_starts_empty():
    meters = Meters(1)
    meters.predicted(5, 5, [])
    meters.rates()
    assert meters.rates()["pps"] == 0
    assert meters.env_steps == 5


def test_episodes_become_lines_and_a_mean_of_the_last_100():
    meters = Meters(1)
    meters.predicted(4, 4, [Episode(1000.0, 3)])
    meters.predicted(4, 4, [Episode(float(i), 7) for i in range(100)])
    lines = meters.take_episodes()
    assert len(lines) == 101
    assert lines[0] == {"kind": "episode", "time_s": lines[0]["time_s"], "env_steps": 4, "return": 1000.0, "length": 3}
    assert meters.take_episodes() == []
    assert meters.rates()["episode_return_mean"] == pytest.approx(49.5)


def test_a_resumed_run_goes_on_counting():
    meters = Meters(4, env_steps=1000, updates=50, time_s=600.0)
    meters.predicted(10, 10, [])
    meters.updated(figures(), 10)
    rates = meters.rates()
    assert (rates["env_steps"], rates["frames"], rates["updates"]) == (1010, 4040, 51)
    assert 600 <= rates["time_s"] < 610


def test_the_metrics_file_is_appended_to_line_by_line(tmp_path):
    for step in (1, 2):
        with MetricsWriter(tmp_path) as writer:
            writer.write([{"kind": "rates", "env_steps": step, "time_s": 0.5, "pps": None}])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["env_steps"] for line in lines] == [1, 2]


def test_tensorboard_events_are_written_where_it_is_installed(tmp_path):
    pytest.importorskip("tensorboard")
    with MetricsWriter(tmp_path) as writer:
        episode = {"kind": "episode", "time_s": 0.4, "env_steps": 2, "return": 1.0, "length": 2}
        writer.write([episode, {"kind": "rates", "env_steps": 3, "time_s": 0.5, "pps": 12.0, "entropy": None}])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["rates/pps"]
    assert events.Scalars("rates/pps")[0].step == 3
