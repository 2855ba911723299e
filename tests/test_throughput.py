"""What benchmarks/throughput.py refuses before anything runs, and what it makes of a peer's answer. No peer is run."""

import importlib
import json
import random
import statistics
import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ga3c.errors import UsageError

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("throughput")


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        (["--peer", "sb3", "--network", "large"], "has networks small and nature"),
        (["--peer", "sample-factory", "--network", "large"], "has networks small and nature"),
        (["--peer", "sample-factory", "--frame-skip", "2"], "--frame-skip 4 only"),
        (["--peer", "sample-factory", "ALE/Pong-v5"], "--sticky-actions 0 would be right"),
        (["--peer", "sample-factory", "CartPole-v1", "--network", "mlp"], "Pong-v5 would be right"),
        (["--peer", "sb3", "--peer-vec", "serial"], "subproc, dummy, best would be right"),
        (["--peer", "sample-factory", "--peer-vec", "dummy"], "async, serial, best would be right"),
        (["--repeats", "0"], "at least 1 would be right"),
    ],
)
def test_what_a_peer_does_not_play_alike_is_refused_before_anything_runs(
    throughput: ModuleType, arguments: list[str], right: str, tmp_path: Path
) -> None:
    record = tmp_path / "record.jsonl"
    with pytest.raises(UsageError, match=right):
        throughput._main([*arguments, "--record", str(record)])
    assert not record.exists()


def test_every_peer_has_its_packages_and_its_script(throughput: ModuleType) -> None:
    for peer in throughput._PEERS.values():
        assert (BENCHMARKS / "peers" / f"{peer.packages}.txt").is_file()
        assert (BENCHMARKS / "peers" / peer.script).is_file()


SETTINGS = {
    "config": {"env": "ALE/Pong-v5", "network": "nature", "t_max": 20, "actors": 4, "envs_per_actor": 16, "seed": 1},
    "device": "cpu",
    "parameters": 7,
}


def asked_peer(throughput: ModuleType, monkeypatch: pytest.MonkeyPatch, parameters: int) -> tuple[list[Any], list[str]]:
    """The series and the arguments of a peer whose script measured two settings, with 4 and with 6 steps a second."""
    words: list[str] = []

    def run_peer(python: Path, script: str, arguments: list[str]) -> dict[str, Any]:
        words.extend([script, *arguments])
        runs = [
            {"system": f"it {n}", "windows": [{"seconds": 4, "pps": n, "training_samples_per_s": n}]} for n in (4, 6)
        ]
        return {"parameters": parameters, "runs": runs}

    monkeypatch.setattr(throughput, "run_peer", run_peer)
    monkeypatch.setattr(throughput, "peer_python", Path)
    options = throughput.Options(peer="sample-factory", peer_vec="serial")
    return throughput._peer_runs(options, SETTINGS), words


def test_a_peer_plays_the_game_of_the_run_with_as_many_environments(
    throughput: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, words = asked_peer(throughput, monkeypatch, parameters=7)
    said = dict(zip(words[1::2], words[2::2], strict=True))
    assert words[0] == "sample_factory_appo.py"
    assert {"--env": "Pong-v5", "--envs": "64", "--t-max": "20", "--network": "nature", "--vec": "serial"}.items() <= (
        said.items()
    )
    assert [(run["system"], run["vec"], run["pps"]["median"]) for run in runs] == [
        ("it 4", "serial", 4),
        ("it 6", "serial", 6),
    ]


def test_a_peer_with_another_network_is_no_comparison(throughput: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="networks differ: 8 parameters, ga3c's 7"):
        asked_peer(throughput, monkeypatch, parameters=8)


def rates_line(pps: float, time_s: float) -> str:
    return json.dumps({"kind": "rates", "time_s": time_s, "pps": pps, "tps": 1.0, "training_samples_per_s": pps}) + "\n"


def test_a_run_stands_still_after_each_window_and_its_rates_leave_that_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    training = importlib.import_module("training")
    metrics, states = tmp_path / "metrics.jsonl", []

    def state(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]

    with subprocess.Popen(["sleep", "60"]) as learner:

        def work() -> None:
            time.sleep(0.3)
            states.append(state(learner.pid))

        pauses = training._Pauses(metrics, work)
        pauses.look(learner.pid)
        metrics.write_text(rates_line(10.0, 4.0) + '{"kind": "rates"', encoding="utf-8")
        for _ in range(3):
            pauses.look(learner.pid)
        assert states == ["T"]  # stopped, once
        assert state(learner.pid) != "T"
        learner.kill()
    spent = {"role_seconds": {"actor": {"environment": 4.0}}}
    windows = [
        {"seconds": 4.0, "pps": 10.0, "warm": True, **spent},
        {"seconds": 4.0, "pps": 8.0, "lag": 2, "warm": True, **spent},
        {"seconds": 3.0, "pps": 12.0, "warm": True, "role_seconds": {}},  # the run took the pause for a suspension
    ]
    first, second = pauses.left_out(windows)
    assert first == windows[0]
    assert second["seconds"] == pytest.approx(3.7, abs=0.1)
    assert second["pps"] * second["seconds"] == pytest.approx(8.0 * 4.0, rel=1e-3)
    assert second["lag"] == 2


def test_a_system_as_fast_as_the_limit_has_an_efficiency_of_1_however_noisy_the_machine(
    throughput: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = importlib.import_module("limits")
    draw = random.Random(1)
    jobs = [limits.Job("env", envs) for envs in (16, 32, 64)]

    class NoisyMachine(limits.Machine):  # type: ignore[misc]
        def __init__(self) -> None:
            self.cores, self.on_cpu = 2, True

        def seconds_a_step(self, job: Any, seconds: float, warm_up_s: float = 0.5) -> float:
            return 500e-6 * draw.gauss(1, 0.13)

    efficiencies = []
    for _ in range(40):
        machine = NoisyMachine()
        beside = throughput._Limits(machine.limit({job: machine.seconds_a_step(job, 1) for job in jobs}), machine)
        for repeat in range(5):
            for _ in range(15):
                beside.measure_next()
            windows = [2 / (500e-6 * draw.gauss(1, 0.09)) for _ in range(15)]
            beside.compare(repeat, {"pps": {"median": statistics.median(windows)}})
        efficiencies += beside.efficiency
    assert statistics.mean(efficiencies) == pytest.approx(1, abs=0.01)


def test_a_cost_counts_no_more_than_the_windows_beside_it_where_the_machine_stalled(
    throughput: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = importlib.import_module("limits")
    clock, stalls = [0.0], [False]
    monkeypatch.setattr(throughput.time, "monotonic", lambda: clock[0])

    class StallingMachine(limits.Machine):  # type: ignore[misc]
        def __init__(self) -> None:
            self.cores, self.on_cpu = 2, True

        def seconds_a_step(self, job: Any, seconds: float, warm_up_s: float = 0.5) -> float:
            clock[0] += 2.0 if stalls[0] else seconds + warm_up_s
            return 900e-6 if stalls[0] else 500e-6

    machine, job = StallingMachine(), limits.Job("env", 16)
    beside = throughput._Limits(machine.limit({job: 500e-6}), machine)
    for stalls[0] in (True, False, True):
        beside.measure_next()
    beside.compare(1, {"pps": {"median": 4000.0}})
    assert beside.efficiency == [1.0]
    stalls[0] = True  # it always does: then that counts, rather than nothing
    beside.compare(2, {"pps": {"median": 4000.0}})
    assert beside.efficiency[1] > 1.5
