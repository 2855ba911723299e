"""The tuner: what it tries and chooses, that its trials are real, and that its preset can be used."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from ga3c.config import find_preset
from ga3c.envs import EnvConfig, env_spec
from ga3c.errors import UsageError
from ga3c.presets import default_config
from ga3c.tune.search import Setting, Trials, Window, games_to_try, neighbours, search
from tests.running import ROOT, STOP_S, finish, ga3c, roles, wait_for

START = Setting(actors=4, envs_per_actor=8, predictors=1, trainers=1, min_training_batch=160, max_prediction_batch=128)


def rate(setting):
    """A machine on which 4 actors of 16 games, batches of 320 and 2 predictors are best."""
    value = 1000.0
    value -= 40 * abs(setting.actors - 4) + 10 * abs(setting.envs_per_actor - 16)
    value -= abs(setting.min_training_batch - 320) / 2 + 50 * abs(setting.predictors - 2) + 80 * (setting.trainers - 1)
    return value


def searched(measure, *, seconds=180.0, max_lag=10.0, objective="training_samples"):
    """Searches on a machine that takes 3 s a trial; returns trials and choice."""
    clock = [0.0]
    trials = Trials(objective, max_lag)
    for setting in search(trials, START, games_to_try(2, START), lambda s: True, lambda: clock[0] / seconds):
        trials.add(setting, [measure(setting), measure(setting)])
        clock[0] += 3.0
    return trials, trials.choice(START)


def test_the_search_finds_the_best_setting_though_its_figures_are_noisy():
    draw = random.Random(1)
    trials, choice = searched(lambda s: Window(0.0, rate(s) * draw.gauss(1, 0.03), 1.0))
    assert rate(choice) >= 0.97 * max(map(rate, trials.windows))
    assert rate(choice) > 1.2 * rate(START)


def test_promising_settings_are_measured_more_often():
    trials, choice = searched(lambda s: Window(0.0, rate(s), 1.0))
    windows = sorted((len(w) for w in trials.windows.values()), reverse=True)
    assert len(trials.windows[choice]) == windows[0] >= 3 * windows[-1]


def test_the_setting_it_began_with_is_kept_where_nothing_is_surely_better():
    draw = random.Random(2)
    for _ in range(10):
        _, choice = searched(lambda s: Window(0.0, 1000 * draw.gauss(1, 0.05), 1.0))
        assert choice == START


def test_a_setting_that_lags_too_far_behind_is_not_chosen_however_fast():
    def measure(setting):
        many = setting.actors * setting.envs_per_actor
        return Window(0.0, 1000.0 + many, many / 16)

    _, choice = searched(measure, max_lag=3.0)
    assert choice.actors * choice.envs_per_actor == 48 or choice.actors * choice.envs_per_actor == 32
    _, lax = searched(measure, max_lag=100.0)
    assert lax.actors * lax.envs_per_actor > 48


def test_what_made_a_setting_a_finalist_does_not_count_again():
    """The best of many by a lucky window: it is judged by what is measured from then on."""
    lucky = START._replace(actors=8)
    trials = Trials("training_samples", 10.0)
    trials.add(START, [Window(0.0, 1000.0 + n, 1.0) for n in range(4)])
    trials.add(lucky, [Window(0.0, 2000.0 + n, 1.0) for n in range(4)])
    assert trials.choice(START) == lucky
    trials.start_over()
    assert trials.choice(START) == START  # until it is measured again
    trials.add(START, [Window(0.0, 1000.0 + n, 1.0) for n in range(4)])
    trials.add(lucky, [Window(0.0, 1000.0 + n, 1.0) for n in range(4)])
    assert trials.choice(START) == START
    assert trials.mean(lucky) == 1001.5
    assert trials.counted(lucky) == 4


def test_nothing_is_chosen_by_two_windows():
    trials = Trials("training_samples", 10.0)
    trials.add(START, [Window(0.0, 1000.0, 1.0), Window(0.0, 1001.0, 1.0)])
    trials.add(START._replace(actors=8), [Window(0.0, 2000.0, 1.0), Window(0.0, 2001.0, 1.0)])
    assert trials.choice(START) == START


def test_a_window_without_an_update_says_nothing_of_the_lag():
    slow = START._replace(min_training_batch=640)
    trials = Trials("pps", 3.0)
    trials.add(slow, [Window(1000.0, 0.0, None), Window(1000.0, 640.0, 5.0)])
    assert trials.lag(slow) == 5.0
    assert not trials.is_within_bound(slow)
    never = START._replace(min_training_batch=1280)
    trials.add(never, [Window(1000.0, 0.0, None)] * 2)
    assert not trials.is_within_bound(never)
    assert trials.ranking()[-1] == never


def test_predictions_can_be_the_objective():
    _, choice = searched(lambda s: Window(1000.0 + 500 * (s.predictors == 2), 1000.0, 1.0), objective="pps")
    assert choice.predictors == 2


def test_settings_that_do_not_fit_are_not_tried():
    trials, clock = Trials("pps", 10.0), [0.0]
    fits = lambda s: s.min_training_batch <= 160 and s.actors <= 4  # noqa: E731
    for setting in search(trials, START, games_to_try(2, START), fits, lambda: clock[0] / 100):
        assert fits(setting)
        trials.add(setting, [Window(rate(setting), 0.0, 1.0)] * 2)
        clock[0] += 3


def test_a_search_that_has_no_time_tries_where_it_begins():
    assert next(search(Trials("pps", 1.0), START, [], lambda s: True, lambda: 1.0)) == START


def test_neighbours_differ_in_one_thing_and_are_possible():
    for setting in (START, START._replace(predictors=3, trainers=2, max_prediction_batch=8, min_training_batch=0)):
        for neighbour in neighbours(setting):
            assert sum(a != b for a, b in zip(setting, neighbour, strict=True)) == 1
            assert min(neighbour.predictors, neighbour.trainers, neighbour.max_prediction_batch) >= 1


def test_a_run_of_the_tuner_leaves_a_preset_that_train_reads(tmp_path):
    counts = ["--actors", "2", "--envs-per-actor", "4", "--t-max", "8", "--min-training-batch", "32"]
    tuned = ga3c("tune", "CartPole-v1", "--minutes", "0.4", "--out", "tuned", *counts, cwd=tmp_path)
    assert tuned.returncode == 0, tuned.err
    preset = json.loads((tmp_path / "tuned" / "preset.json").read_text())
    assert set(preset["options"]) == {*Setting._fields, "t_max"}
    assert preset["found"]["a_second"] > 0
    lines = [json.loads(line) for line in (tmp_path / "tuned" / "trials.jsonl").read_text().splitlines()]
    assert len(lines) >= 3
    assert all(window["training_samples"] > 0 for line in lines for window in line["windows"])
    table = (tmp_path / "tuned" / "trials.md").read_text()
    assert table.count("chosen") == table.count("the search began here") == 1
    assert (tmp_path / "tuned" / "trials.png").stat().st_size > 10_000
    assert not roles(tmp_path)

    run = ga3c("train", "CartPole-v1", "--preset", "tuned/preset.json", "--total-steps", "2000",
               "--out", "run", cwd=tmp_path)  # fmt: skip
    assert run.returncode == 0, run.err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["preset"] == "fast"
    assert {name: config[name] for name in preset["options"]} == preset["options"]
    assert config["t_max"] == 8


def test_a_tuner_that_is_stopped_writes_what_it_found(tmp_path):
    process = ga3c("tune", "CartPole-v1", "--minutes", "3", "--out", "tuned", "--actors", "2", "--t-max", "8",
                   "--min-training-batch", "32", cwd=tmp_path, wait=False)  # fmt: skip
    assert wait_for(lambda: any("actor" in title for title in roles(tmp_path).values()))
    time.sleep(8)
    process.send_signal(signal.SIGINT)
    finish(process, timeout=STOP_S)
    assert process.returncode == 130
    assert "Traceback" not in process.err
    assert (tmp_path / "tuned" / "preset.json").exists() or "before anything was measured" in process.err
    assert wait_for(lambda: not roles(tmp_path), 10)


def tuned_with(tmp_path, line):
    """The exit code and errors of a short search in which ``line`` was said before."""
    code = f"""
import sys
from ga3c import cli
from ga3c.tune import trials
{line}
sys.exit(cli.run(["tune", "CartPole-v1", "--minutes", "0.4", "--out", "tuned", "--actors", "2", "--t-max", "8",
                  "--min-training-batch", "32"]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    return ended.returncode, ended.stderr


def test_a_setting_that_does_not_train_in_time_ends_the_search(tmp_path):
    late = """
def system(bench, config, first=trials.Bench._system):
    trials._START_S = 0.0 if bench._systems else 60.0
    return first(bench, config)
trials.Bench._system = system
"""
    code, said = tuned_with(tmp_path, late)
    assert code == 0
    assert re.fullmatch(r"ga3c tune: \d+ actors of \d+ environments have not trained in 0 s; it ends .*\n", said)
    assert (tmp_path / "tuned" / "preset.json").exists()


def test_a_first_setting_that_does_not_train_in_time_is_a_failure(tmp_path):
    code, said = tuned_with(tmp_path, "trials._START_S = 0.0")
    assert (code, said) == (1, "ga3c: 2 actors of 8 environments have not trained in 0 s\n")


def test_a_preset_file_changes_the_preset_that_it_names(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"preset": "paper", "options": {"actors": 7, "learning_rate": 1e-3, "anneal": true}}')
    assert find_preset(str(path)) == ("paper", {"actors": 7, "learning_rate": 1e-3, "anneal": True})
    spec = env_spec(EnvConfig("CartPole-v1"))
    config = default_config("ga3c", str(path), spec, cuda=False)
    paper = default_config("ga3c", "paper", spec, cuda=False)
    assert (config.actors, config.learning_rate, config.anneal, config.preset) == (7, 1e-3, True, "paper")
    assert config.trainers == paper.trainers


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"preset": "fats", "options": {}}', '{"preset": "fast", "options": {"actors": "many"}}',
     '{"preset": "fast", "options": {"seed": 3}}', '{"preset": "fast", "options": {"sped": 3}}',
     '{"preset": "fast", "options": 3}'],
)  # fmt: skip
def test_a_file_that_is_no_preset_is_refused_by_name(tmp_path, text):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"--preset: .*mine.json holds no preset"):
        find_preset(str(path))
