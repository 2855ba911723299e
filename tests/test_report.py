"""``ga3c eval`` and ``ga3c report`` on real short runs, and the page in a real browser."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ga3c.cli import run
from ga3c.compare.figures import speed_ups
from ga3c.compare.record import read_records
from ga3c.config import TrainConfig
from ga3c.film import filming
from ga3c.report import page
from ga3c.report.runs import read_run
from tests.fake_comparison import grid_rows, learning, rows
from tests.running import ROOT, SMALL, finish, ga3c

COMPARISON = ROOT / "benchmarks" / "results" / "compare-quick"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BROWSER = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--enable-logging=stderr",
    "--virtual-time-budget=5000", "--dump-dom",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with two runs that differ in their seeds, made by the command line at the same time."""
    folder = tmp_path_factory.mktemp("runs")
    started = [
        ga3c("train", "CartPole-v1", "--total-steps", 9000, "--seed", seed, "--device", "cpu", "--out", f"seed-{seed}",
             *SMALL, cwd=folder, wait=False)
        for seed in (1, 2)
    ]  # fmt: skip
    for process in started:
        assert finish(process).returncode == 0, process.err
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A folder of its own with copies of the two runs, where commands are given."""
    for path in trained.iterdir():
        shutil.copytree(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*arguments):
    """Writes report.html and returns its text without the library that draws."""
    assert run(["report", *map(str, arguments)]) == 0
    text = Path("report.html").read_text()
    return text.replace(page.get_plotlyjs(), "")


def figures(text):
    """The data of every chart in a page, by title."""
    found = {}
    for card in text.split('<div class="card')[1:]:
        title = re.search("<h3>(.*?)</h3>", card)[1]
        data = card.split("Plotly.newPlot(", 1)[1]
        found[title] = json.JSONDecoder().raw_decode(data[data.index("[") :])[0]
    return found


def test_eval_of_several_runs_tells_each_and_the_statistics_over_seeds(folder, capsys):
    assert run(["eval", "seed-1", "seed-2", "--episodes", "2", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    totals = json.loads((folder / "seed-1" / "metrics.jsonl").read_text().splitlines()[-1])
    assert totals["env_steps"] >= 3000
    assert re.search(rf"seed-1 +{totals['env_steps']:,} +\d+\.\d\d", said)
    assert "CartPole-v1, 2 seeds: interquartile mean" in said
    assert "95 % bootstrap intervals over the runs of each game" in said
    assert run(["eval", "seed-1", "seed-2", "--episodes", "2", "--device", "cpu", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    means = [one["mean"] for one in result["runs"]]
    [agent] = result["aggregate"].values()
    game = agent["games"]["CartPole-v1"]
    assert game["runs"] == 2
    assert game["mean"]["value"] == pytest.approx(sum(means) / 2)
    assert (game["mean"]["low"], game["mean"]["high"]) == pytest.approx((min(means), max(means)))
    assert agent["human_normalised"] is None
    kept = [json.loads(line) for line in Path("seed-1/evaluations.jsonl").read_text().splitlines()]
    assert [line["mean"] for line in kept] == [means[0], means[0]]  # the same games at every call
    assert kept[0]["checkpoint"].startswith("checkpoint-")
    text = report("seed-1", "seed-2")
    assert "ga3c eval" in text
    assert f"{means[0]:.4g}" in text


def test_evaluations_that_were_played_differently_are_not_pooled(folder):
    for seed, greedy, mean in ((1, False, 123.25), (2, True, 456.75)):
        line = {"returns": [mean, mean], "greedy": greedy, "mean": mean}
        Path(f"seed-{seed}/evaluations.jsonl").write_text(json.dumps(line) + "\n")
    text = report("seed-1", "seed-2")
    for kind, mean in (("2 games, sampled", "123.2"), ("2 games, greedy", "456.8")):
        [line] = [line for line in text.splitlines() if f"ga3c eval, {kind}" in line]
        assert line.count(mean) == 3, "interquartile mean, median and mean of one"


def test_eval_goes_on_where_the_scores_cannot_be_kept(folder, capsys):
    Path("seed-1/evaluations.jsonl").mkdir()
    assert run(["eval", "seed-1", "--episodes", "1", "--device", "cpu", "--json"]) == 0
    said = capsys.readouterr()
    assert "seed-1/evaluations.jsonl: Is a directory" in said.err
    assert json.loads(said.out)["episodes"] == 1


def test_runs_of_two_seeds_are_one_curve_with_a_band_over_minutes_and_over_frames(folder):
    text = report("seed-1", "seed-2")
    assert "mean of 2 seeds, and range (thin lines: the seeds)" in text
    traces = figures(text)["Learning curve, CartPole-v1"]
    named = [trace for trace in traces if trace.get("showlegend") is not False]
    assert [trace["name"] for trace in named] == ["GA3C mlp, fast"] * 2  # over minutes, over frames
    assert [trace["visible"] for trace in named] == [True, False]
    assert any(trace.get("fill") == "tonexty" for trace in traces)
    both = [read_run(folder / name, name) for name in ("seed-1", "seed-2")]
    last = named[1]["x"][-1]
    assert last == pytest.approx(min(one.rates[-1]["frames"] for one in both))
    for one in both:
        assert f"{one.best_score:,.4g}" in text


def test_a_report_has_every_chart_and_table_of_a_run(folder):
    text = report("seed-1", "seed-2")
    assert set(figures(text)) == {
        "Learning curve, CartPole-v1", "Predictions a second (PPS)", "Training", "Where the time goes",
        "Waiting over time", "Policy lag over time", "Policy lag of all samples", "Queues and batches over time",
        "Queues and batches, how often", "Inside the updates",
    }  # fmt: skip
    for words in ("Scores over seeds", "Every step accounted for", "Settings that differ", "All settings", "envpool"):
        assert words in text
    assert text.count('<td class="">yes</td>') == 2  # the steps of both add up
    lag = figures(text)["Policy lag of all samples"][0]
    assert sum(lag["y"]) == pytest.approx(100, abs=0.01)
    [run_1, *_] = [line for line in text.splitlines() if "<td" in line and "seed-1" in line]
    assert f">{read_run(folder / 'seed-1', '').rates[-1]['env_steps']:,}<" in run_1


def test_what_is_damaged_is_left_out_and_said_and_an_open_run_is_told_from_a_whole_one(folder, capsys):
    metrics = Path("seed-1/metrics.jsonl")
    lines = metrics.read_text().splitlines()
    assert json.loads(lines[-1])["kind"] == "totals"
    metrics.write_text("\n".join([*lines[:3], "{torn", *lines[3:-1], "[1]", lines[-1][:20]]))
    Path("seed-2/run.json").write_text("{}")
    text = report("seed-1", "seed-2")
    said = capsys.readouterr().err
    for words in (
        "seed-1: 3 lines of metrics.jsonl cannot be read, and are left out",
        "seed-1: it goes on, or was killed: there are no totals at its end",
        "seed-2: run.json cannot be read (KeyError), so protocol, machine and versions are not known",
    ):
        assert words in said
        assert words in text
    assert "Learning curve, CartPole-v1" in figures(text)


def test_runs_without_games_and_without_windows_are_told(folder):
    metrics = Path("seed-1/metrics.jsonl")
    rates = [line for line in metrics.read_text().splitlines() if '"rates"' in line]
    bare = [json.dumps(json.loads(line) | {"episode_return_mean": None}) for line in rates]
    metrics.write_text("\n".join(bare))
    Path("seed-2/metrics.jsonl").unlink()
    text = report("seed-1", "seed-2")
    assert "seed-1: no game of it has ended yet, so there is no score" in text
    assert "seed-2: no window of it was measured yet" in text
    assert not [title for title in figures(text) if title.startswith("Learning")]
    assert "Predictions a second (PPS)" in figures(text)


def test_a_simulated_device_is_told_by_every_chart_and_no_score_is_drawn(folder):
    facts = json.loads(Path("seed-1/run.json").read_text())
    Path("seed-1/run.json").write_text(json.dumps(facts | {"device": "simulated:null"}))
    text = report("seed-1")
    assert "seed-1: its device is simulated and only waits" in text
    charts = figures(text)
    assert "Learning curve, CartPole-v1" not in charts
    for traces in charts.values():
        assert "simulated device" in json.dumps(traces)


def test_what_a_resume_has_taken_back_is_left_out(folder):
    with Path("seed-1/metrics.jsonl").open("a") as file:
        for time_s in (0.5, 0.7):
            line = {"kind": "rates", "time_s": time_s, "env_steps": 5, "frames": 5, "pps": 1.0}
            file.write(json.dumps(line) + "\n")
        for time_s in (0.0, 0.6):  # of games that ended after that
            file.write(json.dumps({"kind": "episode", "time_s": time_s, "return": 1.0, "length": 5}) + "\n")
    assert read_run(folder / "seed-1", "seed-1").games == 2
    found = read_run(folder / "seed-1", "seed-1").rates
    assert [line["time_s"] for line in found][-2:] == [0.5, 0.7]
    assert found == sorted(found, key=lambda line: line["time_s"])


@pytest.mark.parametrize(("games", "best"), [(150, 30.0), (60, 20.0)])
def test_a_lucky_first_game_is_no_best_score(tmp_path, games, best):
    lines = [{"kind": "episode", "time_s": float(n), "return": 1.0, "length": 5} for n in range(games)]
    for time_s, mean in ((1.0, 500.0), (120.0, 30.0), (140.0, 20.0)):
        lines.append({"kind": "rates", "time_s": time_s, "env_steps": 5, "frames": 5, "episode_return_mean": mean})
    (tmp_path / "config.json").write_text(json.dumps(TrainConfig().to_json()))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_run(tmp_path, "run").best_score == best


def test_clips_lie_in_the_page_as_far_as_they_fit(folder, monkeypatch):
    clips = folder / "seed-1" / "clips"
    clips.mkdir()
    for age, name in enumerate(("newest.mp4", "newer.gif", "old.gif")):
        (clips / name).write_bytes(b"picture")
        os.utime(clips / name, (1e9 - age, 1e9 - age))
    text = report("seed-1")
    assert "video controls" in text
    assert "data:video/mp4;base64,cGljdHVyZQ==" in text
    assert "seed-1: newer.gif" in text
    assert "old.gif" not in text  # the two newest of a run
    monkeypatch.setattr(page, "MOST_CLIP_BYTES", 8)
    assert "seed-1: newer.gif is left out: it would make the page too large" in report("seed-1")


def test_the_name_of_a_folder_is_only_words(folder):
    name = "<script>alert(1)<"
    shutil.move("seed-1", name)
    shutil.move("seed-2", "more")
    text = report(name, "more")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;" in text


def test_a_comparison_is_told_with_the_figures_of_its_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = report(COMPARISON)
    charts = figures(text)
    for title in ("Throughput", "Speed-up by the network&#39;s cost", "Where the time goes"):
        assert title in charts
    for network in ("small", "large"):
        assert f"Queues, batches and policy lag over time, network {network}" in charts
        assert f"Queues, batches and policy lag, how often, network {network}" in charts
    made = speed_ups(read_records([COMPARISON]), "pps")
    assert charts["Speed-up by the network&#39;s cost"][0]["y"] == [one.interval.middle for one in made]
    for one in made:
        assert f"{one.interval.middle:.2f} times" in text
    assert "commit c41bf241ae with changes" in text
    assert [bar["name"] for bar in charts["Throughput"] if bar["visible"]] == ["A3C (cpu)", "A2C (cpu)", "GA3C (cpu)"]


def test_scores_a_grid_failures_and_a_simulated_device_of_a_comparison_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed = rows(("ga3c",), ("nature",), 1)[0] | {"error": "Traceback\nboom", "windows": []}
    made = {
        "learnt": [*learning(rows(networks=("small",))), *grid_rows(), failed],
        "waited": rows(networks=("small",), repeats=1, device="simulated:titan-x"),
    }
    for name, lines in made.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = report("learnt", "waited")
    assert "Scores, network small" in figures(text)
    assert "How many actors, predictors and trainers" in figures(text)
    assert "nature, repeat 1 failed: boom" in text
    assert "simulated: a device that only waits" in text


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open the report in")
def test_the_page_opens_in_a_browser_without_an_error_and_without_a_network(folder, tmp_path):
    (folder / "seed-1" / "clips").mkdir()
    with filming(folder / "seed-1" / "clips" / "clip-000000000100.mp4", 15) as add:
        for grey in range(0, 200, 20):
            add(Image.new("RGB", (160, 210), (grey, grey, 90)))
    text = report("seed-1", "seed-2", COMPARISON)
    assert "<video" in text
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", text)
    charts = re.findall(r'id="(chart-\d+-\d+)"', text)
    assert len(charts) == len(set(charts)) > 15
    opened = subprocess.run(
        [CHROMIUM, *BROWSER, f"--user-data-dir={tmp_path}/profile", (tmp_path / "report.html").as_uri()],
        capture_output=True, text=True, errors="replace", timeout=100, check=True,
    )  # fmt: skip
    console = [line for line in opened.stderr.splitlines() if "CONSOLE" in line]
    assert not console  # its policy forbids every fetch: one would be an error here
    drawn = re.sub("<script.*?</script>", "", opened.stdout.split("<body>")[1], flags=re.DOTALL)
    for chart in charts:
        [division] = re.findall(rf'<div id="{chart}" class="([^"]*)"', drawn)
        assert "js-plotly-plot" in division
    assert drawn.count('class="main-svg"') >= 2 * len(charts)
    assert drawn.count('class="scatterlayer') + drawn.count('class="barlayer') >= len(charts)
    assert drawn.count('class="point"') > 20  # bars
    assert drawn.count('class="js-line"') > 20
    assert drawn.count("log x") >= 1, "a button for a logarithmic axis"
    assert drawn.count("log y") > 5


def test_a_browser_tells_what_a_page_gets_wrong(tmp_path):
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    bad = tmp_path / "bad.html"
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    bad.write_text(f"<html><head>{policy}</head><body><img src='https://example.invalid/x.png'></body></html>")
    opened = subprocess.run(
        [CHROMIUM, *BROWSER, f"--user-data-dir={tmp_path}/profile", bad.as_uri()],
        capture_output=True, text=True, errors="replace", timeout=100, check=True,
    )  # fmt: skip
    assert any("CONSOLE" in line for line in opened.stderr.splitlines())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("kind", "time_s", "env_steps", "frames", "pps", "role_seconds", "policy_lag_histogram", "episode_return_mean")
LINES = st.lists(
    st.dictionaries(st.sampled_from(NAMES), JSON | st.sampled_from(["rates", "totals", "episode"]), max_size=8) | JSON,
    max_size=4,
)


@settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(LINES, st.binary(max_size=20))
def test_whatever_is_in_the_metrics_a_run_is_read(tmp_path, lines, torn):
    (tmp_path / "config.json").write_text(json.dumps(TrainConfig().to_json()))
    text = "\n".join(json.dumps(line) for line in lines).encode()
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        (tmp_path / name).write_bytes(text + b"\n" + torn)
    found = read_run(tmp_path, "run")
    for line in found.rates:
        assert all(isinstance(line[name], int | float) for name in ("time_s", "env_steps", "frames"))
        assert all(key.isdecimal() for key in line.get("policy_lag_histogram", {}))
    assert found.notes
