import dataclasses
import functools
import json
import shlex
import signal
import time
from pathlib import Path

import pytest

from ga3c.compare.cells import Cell, ScoreWatch, run_train, windows_of
from ga3c.compare.command import run_compare
from ga3c.compare.figures import histogram, measured, published, rate, role_shares, speed_ups
from ga3c.compare.grid import Stopped, compare, failures
from ga3c.compare.options import CompareOptions, Comparison, resolve
from ga3c.compare.plan import Variant, mode_cells, tuning_stages, variants
from ga3c.compare.record import read_records, read_rows
from ga3c.compare.report import differences, write_report
from ga3c.errors import UsageError
from ga3c.machine import machine, versions
from ga3c.statistics import interval
from tests.fake_comparison import MFLOP, row, rows
from tests.running import wait_for

WHAT = Comparison(
    env="CartPole-v1", modes=("a3c", "a2c", "ga3c"), networks=("small", "large"), device="cpu", repeats=2,
    minutes_each=0.5, trial_minutes=0.4, warm_up_s=8.0, seed=1,
)  # fmt: skip
PPS = {"a3c": 100.0, "a2c": 200.0, "ga3c": 300.0}


class FakeTrain:
    """Stands in for ``ga3c train``: leaves a run folder at once, and remembers what it was asked."""

    def __init__(self, fails=None, stops_at=None, returns=()):
        self.asked = []
        self.fails = fails or (lambda said: None)
        self.stops_at = stops_at
        self.returns = returns

    def __call__(self, arguments, limit_s, watch):
        said = dict(zip(arguments[1::2], arguments[2::2], strict=True)) | {"env": arguments[0]}
        self.asked.append(said)
        if len(self.asked) == self.stops_at:
            signal.raise_signal(signal.SIGINT)
        error = self.fails(said)
        if error is None:
            self.write(said)
            watch()
        return error

    def write(self, said):
        folder = Path(said["--out"])
        folder.mkdir(parents=True)
        mode, network = said["--mode"], said["--network"]
        config = {
            "mode": mode, "network": network, "actors": int(said.get("--actors", 4)),
            "envs_per_actor": int(said.get("--envs-per-actor", 8)), "learning_rate": 7e-4,
        }  # fmt: skip
        run = {
            "config": config, "protocol": "none", "device": said["--device"], "precision": "fp32", "parameters": 1,
            "mflop_per_state": MFLOP[network], "machine": machine(), "versions": versions(),
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in self.lines(said)))

    def lines(self, said):
        # More actors train faster, up to 4 of them.
        rate = PPS[said["--mode"]] * min(4, int(said.get("--actors", 4)))
        for number in range(1, 7):
            mean = self.returns[number - 1] if self.returns else None
            yield {"kind": "episode", "time_s": 4.0 * number, "env_steps": 1, "return": 1.0, "length": 1}
            yield {
                "kind": "rates", "time_s": 4.0 * number, "pps": rate, "tps": 1.0, "training_samples_per_s": rate,
                "env_steps": 100 * number, "frames": 400 * number, "episode_return_mean": mean,
            }  # fmt: skip


def places(made):
    return [(cell["mode"], cell["network"], cell["repeat"]) for cell in (one["cell"] for one in made)]


def test_modes_alternate_within_a_repeat_and_the_order_differs_between_repeats():
    found = variants(("a3c", "a2c", "ga3c"), "cpu")
    repeats = [mode_cells(found, ("small", "nature", "large"), r, 1, 0.5, {}) for r in range(1, 9)]
    for cells in repeats:
        modes = [cell.mode for cell in cells]
        assert modes == 3 * modes[:3]
        assert len(set(modes)) == 3
        assert len({(cell.mode, cell.network) for cell in cells}) == 9
    orders = {tuple((cell.mode, cell.network) for cell in cells) for cells in repeats}
    assert len(orders) > 3
    assert repeats[2] == mode_cells(found, ("small", "nature", "large"), 3, 1, 0.5, {})


def test_where_there_is_a_gpu_a3c_is_measured_on_the_cpu_too():
    assert variants(("a3c", "ga3c"), "cuda") == [Variant("a3c", "cpu"), Variant("a3c", "cuda"), Variant("ga3c", "cuda")]
    assert variants(("a3c", "ga3c"), "cpu") == [Variant("a3c", "cpu"), Variant("ga3c", "cpu")]


def test_each_cell_is_run_once_with_its_own_settings_and_what_was_passed_on(tmp_path):
    train = FakeTrain()
    what = dataclasses.replace(WHAT, train_arguments=("--t-max", "5"))
    made = compare(what, tmp_path, runner=train)
    assert len(made) == len(train.asked) == 12
    assert len({(a["--mode"], a["--network"], a["--seed"]) for a in train.asked}) == 12
    for asked in train.asked:
        assert (asked["env"], asked["--t-max"], asked["--minutes"]) == ("CartPole-v1", "5", "0.5000")
        assert asked["--seed"] in ("1", "2")
    assert read_rows(tmp_path) == made
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped) as stop:
        compare(WHAT, tmp_path, runner=FakeTrain(stops_at=6))
    assert stop.value.exitcode == 130
    assert len(read_rows(tmp_path)) == 5
    second = FakeTrain()
    made = compare(WHAT, tmp_path, runner=second)
    assert len(second.asked) == 7
    assert places(made) == places(compare(WHAT, tmp_path / "other", runner=FakeTrain()))
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_row_that_a_kill_cut_short_is_measured_again(tmp_path):
    compare(WHAT, tmp_path, runner=FakeTrain())
    record = tmp_path / "results.jsonl"
    record.write_bytes(record.read_bytes()[:-20])
    again = FakeTrain()
    assert len(compare(WHAT, tmp_path, runner=again)) == 12
    assert len(again.asked) == 1
    assert len(read_rows(tmp_path)) == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"minutes_each": 0.6}, "--minutes-each 0.5, not 0.6"),
        ({"networks": ("small",)}, "--networks small,large, not small"),
        ({"train_arguments": ("--t-max", "5")}, "options for ga3c train: none, not --t-max,5"),
    ],
)
def test_a_folder_with_other_settings_is_refused(tmp_path, change, words):
    compare(WHAT, tmp_path, runner=FakeTrain())
    with pytest.raises(UsageError, match=words):
        compare(dataclasses.replace(WHAT, **change), tmp_path, runner=FakeTrain())


def test_more_repeats_go_on_with_those_that_are_there(tmp_path):
    compare(WHAT, tmp_path, runner=FakeTrain())
    more = FakeTrain()
    compare(dataclasses.replace(WHAT, repeats=3), tmp_path, runner=more)
    assert [asked["--seed"] for asked in more.asked] == ["3"] * 6


def test_a_cell_that_fails_is_reported_and_the_others_go_on(tmp_path, capsys):
    def fails(said):
        return "worker 1: boom\nRuntimeError: no" if (said["--mode"], said["--network"]) == ("a2c", "large") else None

    made = compare(WHAT, tmp_path, runner=FakeTrain(fails))
    assert [one["cell"]["mode"] for one in failures(made)] == ["a2c", "a2c"]
    assert len(measured(made)) == 10
    assert "a2c on cpu, large, repeat 1: failed: RuntimeError: no" in capsys.readouterr().out
    text = write_report(made, [], tmp_path).read_text()
    assert "## Failed" in text
    assert "RuntimeError: no" in text
    again = FakeTrain()
    compare(WHAT, tmp_path, runner=again)
    assert len(again.asked) == 2


def test_a_run_that_never_became_warm_fails_at_the_bound(tmp_path, capsys):
    train = FakeTrain()
    what = dataclasses.replace(WHAT, modes=("a2c",), networks=("small",), repeats=1, warm_up_s=60.0)
    (made,) = compare(what, tmp_path, runner=train)
    assert made["error"] == "it was not warm after 300 s, the most that it is given"
    assert [float(asked["--minutes"]) for asked in train.asked] == [0.5, 1, 2, 4, 5]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "a run that has not become warm in its time is run again with twice as much, up to 5 minutes"
    assert "a2c on cpu, small, repeat 1: not warm after 30 s; run again with 60 s" in said
    assert not (tmp_path / "runs").exists()


def test_a_run_on_a_busy_machine_is_given_the_time_that_it_needs(tmp_path):
    class BusyTrain(FakeTrain):
        def lines(self, said):
            """No actor plays before 50 s."""
            late = [line | {"time_s": line["time_s"] + 48.0} for line in super().lines(said)]
            cold = {"kind": "rates", "time_s": 48.0, "pps": 0.0}
            return [line for line in [cold, *late] if line["time_s"] <= 60 * float(said["--minutes"])]

    what = dataclasses.replace(WHAT, modes=("a2c",), networks=("small",), repeats=1)
    (made,) = compare(what, tmp_path, runner=BusyTrain())
    assert (made["error"], made["cell"]["minutes"], made["minutes"]) == (None, 0.5, 2.0)
    assert compare(what, tmp_path, runner=None) == [made], "it is done, as the cell that it is"


def test_a_failed_cell_says_how_to_run_it_again(monkeypatch, tmp_path, capsys):
    def fails(said):
        return "no" if said["--mode"] == "a2c" else None

    out = tmp_path / "my comparison"
    asked = [
        "--env",
        "CartPole-v1",
        "--modes",
        "a2c,a3c",
        "--networks",
        "mlp",
        "--device",
        "cpu",
        "--minutes-each",
        "0.5",
    ]
    asked += [
        "--out",
        str(out),
        "--repeats",
        "2",
        "--grid",
        "--modes",
        "a2c,ga3c",
        "--grid-actors",
        "1,2",
        "--t-max",
        "4",
    ]
    monkeypatch.setitem(MFLOP, "mlp", 0.1)

    def typed(words, train):
        monkeypatch.setattr("ga3c.compare.command.compare", functools.partial(compare, runner=train))
        return run_compare(words)

    assert typed(asked, FakeTrain(fails)) == 1
    before, _, command = capsys.readouterr().err.strip().splitlines()[-1].partition("nothing else: ")
    assert before.startswith("ga3c compare: ")
    assert f"\n```sh\n{command}\n```" in (out / "report.md").read_text()
    again = FakeTrain()
    assert typed(shlex.split(command)[2:], again) == 0
    assert [said["--mode"] for said in again.asked] == ["a2c", "a2c"]
    assert all(said["--t-max"] == "4" for said in again.asked)
    assert "Failed" not in (out / "report.md").read_text()


def test_tuning_takes_the_counts_that_train_fastest_and_keeps_the_trials(tmp_path):
    train = FakeTrain()
    what = dataclasses.replace(WHAT, modes=("a3c",), networks=("small",), repeats=1, tune=True)
    made = compare(what, tmp_path, runner=train)
    trials = [one for one in made if one["cell"]["kind"] == "trial"]
    rates = {one["cell"]["settings"]["actors"]: rate(one, "training_samples_per_s") for one in trials}
    assert len(rates) == 3
    best = made[-1]["cell"]["settings"]["actors"]
    assert rates[best] == max(rates.values())
    assert "## Trials" in write_report(made, [], tmp_path).read_text()
    again = FakeTrain()
    assert compare(what, tmp_path, runner=again) == made
    assert again.asked == []


def test_tuning_leaves_what_the_user_chose_alone():
    stages = tuning_stages("ga3c", 2, ("actors", "min_training_batch"))
    assert stages == [{"envs_per_actor": [8, 16, 32]}]


def test_the_grid_has_every_combination_of_counts(tmp_path):
    train = FakeTrain()
    axes = {"actors": (2, 4), "predictors": (1, 2), "trainers": (1,)}
    what = dataclasses.replace(WHAT, modes=("ga3c",), networks=("small",), repeats=1, grid=axes)
    made = compare(what, tmp_path, runner=train)
    counts = {tuple(one["cell"]["settings"].values()) for one in measured(made, "grid")}
    assert counts == {(2, 1, 1), (2, 2, 1), (4, 1, 1), (4, 2, 1)}
    assert len(measured(made)) == 1


def test_a_run_is_over_once_the_mean_of_100_games_reaches_the_score(tmp_path):
    watch = ScoreWatch(tmp_path, 18.0)
    assert not watch()
    rates = {"kind": "rates", "time_s": 9.0, "env_steps": 10, "frames": 40, "episode_return_mean": 19.0}
    with (tmp_path / "metrics.jsonl").open("w") as file:
        file.write(99 * '{"kind": "episode"}\n' + json.dumps(rates) + "\n")
        file.flush()
        assert not watch()
        file.write('{"kind": "episode"}\n' + json.dumps(rates | {"time_s": 13.0}))
        file.flush()
        assert not watch()
        file.write("\n")
        file.flush()
        assert watch()
    assert watch.reached == {"time_s": 13.0, "env_steps": 10, "frames": 40}


def test_windows_of_the_warm_up_and_the_last_one_do_not_count():
    lines = [{"kind": "rates", "time_s": 4.0 * n, "pps": 0.0 if n < 2 else 10.0} for n in range(1, 8)]
    found = windows_of(lines, 8.0)
    assert [w["began_s"] for w in found if w["warm"]] == [12.0, 16.0, 20.0]
    assert [w["seconds"] for w in found] == [4.0] * 7


def test_windows_are_warm_after_the_last_actor_has_come_to_play():
    lines = [
        {"kind": "rates", "time_s": 4.0 * n, "pps": 10.0, "actors": 4, "actors_playing": min(n, 4)} for n in range(1, 9)
    ]
    assert [w["began_s"] for w in windows_of(lines, 8.0) if w["warm"]] == [20.0, 24.0]


def test_the_speed_up_is_the_median_of_ratios_within_repeats():
    made = [row("a3c", repeat=r, pps=p) for r, p in ((1, 100.0), (2, 200.0), (3, 50.0))]
    made += [row("ga3c", repeat=r, pps=p) for r, p in ((1, 200.0), (2, 300.0), (3, 200.0), (4, 999.0))]
    (found,) = speed_ups(made, "pps")
    assert found.ratios == (2.0, 1.5, 4.0)
    assert (found.interval.middle, found.interval.low, found.interval.high) == (2.0, 1.5, 4.0)
    assert found.interval.is_bootstrap
    assert found.pair == "GA3C (cpu) / A3C (cpu)"


def test_with_few_repeats_the_range_is_given_in_place_of_an_interval():
    found = interval([2.0, 3.0])
    assert (found.middle, found.low, found.high, found.kind) == (2.5, 2.0, 3.0, "range")


def test_the_bootstrap_interval_is_narrower_than_the_range_and_the_same_at_every_call():
    figures = [float(n) for n in range(1, 22)]
    found = interval(figures)
    assert found.middle == 11.0
    assert 1.0 < found.low < 11.0 < found.high < 21.0
    assert interval(figures) == found


def test_a_pair_lies_within_one_record():
    made = [one | {"record": name} for name in ("a", "b") for one in rows(networks=("small",), repeats=1)]
    assert {s.pair for s in speed_ups(made, "pps")} == {
        "GA3C (cpu), a / A3C (cpu), a",
        "GA3C (cpu), b / A3C (cpu), b",
    }


def test_counts_and_seconds_are_pooled_over_warm_windows_and_may_be_missing():
    made = row()
    for number, window in enumerate(made["windows"]):
        window["policy_lag_histogram"] = {"0": 1, "10": 2} if number % 2 else {}
        window["role_seconds"] = {"actor": {"environment": 1.0, "waiting": 3.0}, "trainer": {"waiting": 0.0}}
    assert histogram([made], "policy_lag_histogram") == {0.0: 2, 10.0: 4}
    assert role_shares([made]) == {"actor": {"environment": 0.25, "waiting": 0.75}}
    for window in made["windows"]:
        del window["policy_lag_histogram"], window["role_seconds"]
    assert histogram([made], "policy_lag_histogram") == {}
    assert role_shares([made]) == {}


def test_what_modes_differ_in_is_told():
    head, lines = differences(rows(repeats=1))
    assert head[:3] == ["mode (device)", "environments", "precision"]
    assert {line[0]: line[1] for line in lines} == {"A3C (cpu)": "2", "A2C (cpu)": "32", "GA3C (cpu)": "32"}


def test_the_report_says_simulated_where_a_device_was(tmp_path):
    made = rows(("a3c", "ga3c"), ("small",), 1, "simulated:null")
    text = write_report(made, [], tmp_path).read_text()
    assert "- simulated: a device that only waits" in text
    assert "| GA3C (simulated:null) / A3C (simulated:null) |" in text


def test_the_published_pairs_name_hardware_and_source():
    found = published()
    assert len(found) == 6
    assert all(p.hardware and "1611.06256" in p.source for p in found)


@pytest.mark.parametrize(
    ("options", "passed_on", "words"),
    [
        ({"modes": "a3c,b3c"}, [], "--modes: got 'b3c'"),
        ({"modes": "a3c,"}, [], "--modes: got 'a3c,'"),
        ({"networks": "smal"}, [], "unknown network 'smal'"),
        ({"networks": "mlp", "repeats": 0}, [], "--repeats: got 0; at least 1"),
        ({"minutes_each": 0.2}, [], r"--minutes-each: got 0\.2; at least 0\.34 with 8 s of warm-up"),
        ({"minutes_each": float("nan")}, [], "--minutes-each: got nan"),
        ({"env": "Pog-v5"}, [], "Pog-v5"),
        ({}, ["--minutes", "3"], "--minutes is the comparison's own"),
        ({}, ["--actors", "0"], "--actors: got 0"),
        ({}, ["CartPole-v1"], "--env CartPole-v1 would be right"),
        ({"grid": True, "grid_actors": "2,x"}, [], "--grid-actors: got '2,x'"),
        ({"grid": True, "modes": "a3c"}, [], "--grid: it is of mode ga3c"),
        ({"until_score": float("inf")}, [], "--until-score: got inf"),
        ({"device": "tpu"}, [], "tpu"),
    ],
)
def test_a_wrong_option_is_told_in_a_sentence(options, passed_on, words):
    with pytest.raises(UsageError, match=words) as error:
        resolve(CompareOptions(**({"env": "CartPole-v1"} | options)), passed_on)
    assert "\n" not in str(error.value)


def test_quick_fits_two_networks_and_two_modes_into_five_minutes():
    what = resolve(CompareOptions(quick=True, device="cpu"), [])
    assert (what.modes, what.networks, what.repeats) == (("a3c", "ga3c"), ("small", "large"), 2)
    assert 8 * (60 * what.minutes_each + 8) < 270
    assert 60 * what.minutes_each > what.warm_up_s + 8


def test_a_record_that_is_none_is_told_in_a_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"has no results\.jsonl"):
        read_records([tmp_path])
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(UsageError, match="empty"):
        read_records([tmp_path])
    for text in ("{}\n", "[1]\n", "not json\n", '{"cell": {"kind": "mode"}}\n'):
        (tmp_path / "results.jsonl").write_text(text)
        with pytest.raises(UsageError, match="cannot be read"):
            read_records([tmp_path])


def test_records_that_are_laid_over_each_other_keep_their_names(tmp_path):
    folders = [tmp_path / name for name in ("old", "new")]
    for folder in folders:
        compare(WHAT, folder, runner=FakeTrain())
    assert {one["record"] for one in read_records(folders)} == {"old", "new"}
    assert all("record" not in one for one in read_records(folders[:1]))


def test_a_missing_library_is_told_before_anything_runs(monkeypatch):
    monkeypatch.setattr("ga3c.compare.command.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'ga3c\[compare\]'"):
        run_compare(["--modes", "ga3c"])


def pretend(monkeypatch, tmp_path, script):
    """Makes ``ga3c train`` the shell script."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr("ga3c.compare.cells.sys.executable", str(path))


def never():
    return False


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'ga3c: --t-max: got 0' >&2; exit 2", "--t-max: got 0"),
        (
            "echo '╭─ Invalid choice ─╮\n│ no mode b3c     │\n╰─────────────────╯' >&2; exit 2",
            "Invalid choice\nno mode b3c",
        ),
        ("exit 3", "ended with exit code 3"),
        ("exit 0", None),
    ],
)
def test_a_run_that_fails_tells_why(monkeypatch, tmp_path, script, words):
    pretend(monkeypatch, tmp_path, script)
    assert run_train([], 60.0, never) == words


def test_a_run_that_hangs_is_killed_with_all_its_processes(monkeypatch, tmp_path):
    pretend(monkeypatch, tmp_path, f"trap '' INT; sleep 60 & echo $! > {tmp_path}/child; wait; sleep 60")
    monkeypatch.setattr("ga3c.compare.cells._STOP_S", 0.1)
    assert run_train([], 3.0, never) == "did not end within 3 s"
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    assert wait_for(lambda: not child.exists() or child.read_text().split()[2] == "Z", timeout=10)


def test_a_real_run_is_stopped_when_it_has_done_enough(tmp_path):
    cell = Cell("mode", "ga3c", "cpu", "mlp", 1, 1.0, {"actors": 1})
    folder = tmp_path / cell.folder
    began = time.monotonic()
    metrics = folder / "metrics.jsonl"
    assert run_train(cell.arguments("CartPole-v1", 1, [], folder), 60.0, metrics.exists) is None
    assert time.monotonic() - began < 50
    assert json.loads((folder / "run.json").read_text())["config"]["actors"] == 1


def test_sigint_ends_the_command_with_130_and_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    def interrupted(*_, **__):
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr("ga3c.compare.command.compare", interrupted)
    code = run_compare(["--env", "CartPole-v1", "--modes", "ga3c", "--device", "cpu", "--out", str(tmp_path)])
    assert code == 130
    assert f"--out {tmp_path} goes on" in capsys.readouterr().err
