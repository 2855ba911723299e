"""The device that only waits: one at a time, for threads and processes, and nobody is held up by one that dies."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from ga3c import latency
from ga3c.batches import Batcher
from ga3c.choices import LossConfig
from ga3c.config import TrainConfig
from ga3c.curves import Curve, Line, find_curve
from ga3c.envs import EnvConfig, env_spec
from ga3c.errors import UsageError
from ga3c.latency import fit_line
from ga3c.model import Batch
from ga3c.networks import build_network
from ga3c.optim import build_optimiser
from ga3c.simulated import SimulatedModel, Timeline
from ga3c.slabs import Place, Rollouts, Slab, SlabLayout

LOSS = LossConfig(entropy_cost=0.0, value_cost=0.5, reduction="mean", log_floor=0.0, normalise_advantages=False)
SERVE = """
import sys, time
from ga3c.simulated import Timeline
timeline = Timeline(int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    timeline.serve(float(sys.argv[3]))
"""


def timeline_memory():
    fd = os.memfd_create("test")
    os.ftruncate(fd, 4096)
    return fd


def serving(fd, times, seconds):
    """Another process that asks the same device, once it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(fd), str(times), str(seconds)],
        pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def simulated(prediction=(0.0, 0.0), training=(0.0, 0.0), *, several_threads=False):
    torch.manual_seed(1)
    network = build_network("mlp", (4,), 3, "orthogonal")
    optimiser = build_optimiser("adam", network.parameters(), 1e-3, 0.99, 1e-5)
    curve = Curve(Line(*prediction), Line(*training))
    return SimulatedModel(
        network, optimiser, LOSS,
        curve=curve, timeline=Timeline(), num_actions=3, several_threads=several_threads,
    )  # fmt: skip


def test_requests_of_threads_are_served_one_at_a_time():
    timeline = Timeline()
    began = time.monotonic()
    threads = [threading.Thread(target=lambda: [timeline.serve(0.01) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert time.monotonic() - began >= 4 * 10 * 0.01


def test_a_short_request_does_not_wait_for_the_whole_of_a_long_one():
    timeline = Timeline()
    long = threading.Thread(target=timeline.serve, args=(1.0,))
    began = time.monotonic()
    long.start()
    time.sleep(0.1)
    timeline.serve(0.004)
    assert time.monotonic() - began < 0.6
    long.join()
    assert time.monotonic() - began >= 1.004


def test_a_device_that_was_idle_takes_the_whole_of_the_time():
    timeline = Timeline()
    for seconds in (0.0002, 0.0031):
        time.sleep(0.01)
        began = time.monotonic()
        timeline.serve(seconds)
        assert time.monotonic() - began >= seconds


def test_requests_of_processes_are_served_one_at_a_time():
    fd = timeline_memory()
    processes = [serving(fd, 20, 0.01) for _ in range(3)]
    began = time.monotonic()
    for process in processes:
        process.communicate("go\n", timeout=30)
    assert time.monotonic() - began >= 3 * 20 * 0.01
    os.close(fd)


def test_a_process_killed_while_it_is_served_holds_up_nobody():
    fd = timeline_memory()
    timeline = Timeline(fd)
    for _ in range(5):
        process = serving(fd, 1000, 0.002)
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)
        began = time.monotonic()
        timeline.serve(0.001)
        assert time.monotonic() - began < 5
    os.close(fd)


def test_predictions_and_updates_take_the_time_of_their_batch_and_change_only_the_version():
    model = simulated(prediction=(0.02, 0.01), training=(0.03, 0.001))
    weights = [p.clone() for p in model.network.parameters()]
    began = time.monotonic()
    prediction = model.predict(torch.zeros(8, 4))
    assert time.monotonic() - began >= 0.02 + 8 * 0.01
    assert set(prediction.actions) <= {0, 1, 2}
    batch = Batch(
        torch.zeros(10, 4), torch.zeros(10, dtype=torch.int64), torch.zeros(10), torch.ones(10, dtype=torch.bool),
        np.zeros(10, np.int64),
    )  # fmt: skip
    began = time.monotonic()
    figures = model.update(batch, 0.1)
    assert time.monotonic() - began >= 0.03 + 10 * 0.001
    assert (figures.samples, figures.lags, model.version) == (10, {0: 10}, 1)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.network.parameters(), strict=True))


@pytest.mark.parametrize("several_threads", [True, False])
def test_states_stay_on_the_device_where_they_would_on_a_gpu(several_threads):
    model = simulated(several_threads=several_threads)
    assert not model.on_cpu
    slab = Slab(SlabLayout(2, 5, 3, (4,), "float32"))
    assert model.reads_in_place([Place(slab, 0, 0)])
    rollouts = [Rollouts(slab, segment, lambda _: None) for segment in (1, 0)]
    batch = Batcher(model, discount=0.99, trace_decay=0.95).gather(rollouts)
    assert len(batch.states) == len(batch.actions) == 30
    assert (model.recall(rollouts) is not None) == several_threads
    assert model.update(dataclasses.replace(batch, live=torch.ones(30, dtype=torch.bool)), 0.1).samples == 30


def test_states_of_several_requests_cross_from_where_they_lie_unless_they_are_few():
    model = simulated()
    images = [Slab(SlabLayout(2, 2, envs, (4, 84, 84), "uint8")) for envs in (8, 8, 1, 1)]
    places = [Place(slab, 1, 0) for slab in images]
    assert model.reads_in_place(places[:2])
    assert model.reads_in_place(places[3:])
    assert not model.reads_in_place(places[2:])
    assert len(model.predict_in_place(places[:2]).actions) == 16


def test_actions_are_drawn_alike_however_many_are_asked_for():
    model = simulated()
    drawn = [model.predict(torch.zeros(count, 4)).actions for count in (1, 20_000, 7, 16_000, 9_000)]
    assert [len(actions) for actions in drawn] == [1, 20_000, 7, 16_000, 9_000]
    counts = np.bincount(np.concatenate(drawn), minlength=3)
    assert len(counts) == 3
    assert abs(counts / counts.sum() - 1 / 3).max() < 0.02
    assert not np.array_equal(drawn[3][:9_000], drawn[4])


def test_waiting_costs_no_cpu():
    model = simulated(prediction=(0.2, 0.0))
    model.predict(torch.zeros(1, 4))
    spent = time.process_time()
    model.predict(torch.zeros(1, 4))
    assert time.process_time() - spent < 0.05


def test_every_curve_of_the_package_names_its_source():
    from importlib import resources

    text = (resources.files("ga3c") / "data" / "simulated_devices.json").read_text()
    for name, device in json.loads(text).items():
        assert len(device["source"]) > 20, name
        for network in device["curves"]:
            assert find_curve(f"simulated:{name}", network).prediction.seconds(1) >= 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "unknown simulated device"),
        ("{}", "holds no latency curves"),
        ("nonsense", "holds no latency curves"),
        ('{"curves": {"nature": {}}}', "holds no latency curves"),
        (
            '{"curves": {"nature": {"prediction": {"base_s": 1, "per_state_s": 0},'
            ' "training": {"base_s": 0, "per_state_s": 0}}}}',
            "no curve for network small",
        ),
        ('{"curves": {"small": {"prediction": {"base_s": 1}, "training": {}}}}', "holds no latency curves"),
        (
            '{"curves": {"*": {"prediction": {"base_s": -1, "per_state_s": 0},'
            ' "training": {"base_s": 0, "per_state_s": 0}}}}',
            "negative",
        ),
    ],
)
def test_a_curve_that_cannot_be_used_is_told_in_a_sentence(tmp_path, text, words):
    path = tmp_path / "curve.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=words):
        find_curve(f"simulated:{path}", "small")


def test_a_line_through_exact_latencies_is_found_and_never_negative():
    exact = fit_line([(n, 0.002 + 0.0001 * n) for n in (1, 4, 16, 64)])
    assert exact.base_s == pytest.approx(0.002)
    assert exact.per_state_s == pytest.approx(0.0001)
    falling = fit_line([(1, 0.004), (10, 0.002)])
    assert (falling.base_s, falling.per_state_s) == (pytest.approx(0.003), 0.0)
    steep = fit_line([(1, 0.001), (10, 0.1)])
    assert steep.base_s == 0.0
    assert steep.per_state_s > 0


def test_a_measured_curve_is_read_back_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "_SECONDS", 0.01)
    spec = env_spec(EnvConfig("CartPole-v1"))
    curve = latency.measure(TrainConfig(env="CartPole-v1", network="mlp", device="cpu", precision="fp32"), spec)
    path = tmp_path / "curves.json"
    latency.write_curves(path, "cpu", {"mlp": curve})
    assert find_curve(f"simulated:{path}", "mlp") == curve
    assert curve.prediction.seconds(128) > 0
    assert "torch" in json.loads(path.read_text())["source"]
