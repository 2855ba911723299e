"""What README.md and docs/ say: every command and every block of Python is run, and whatever they name is there.

A command that takes long is cut short by options at its end; one that takes a minute even so is run where pytest is
given ``--long``, and its options are checked everywhere; what cannot be run inside a test is skipped, with the reason.
A command that no rule knows fails. A block of Python that begins with a file's name in a comment is that file.
"""

import contextlib
import fnmatch
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from filelock import FileLock
from markdown_it import MarkdownIt

import ga3c
from ga3c import cli, latency
from ga3c.compare.options import CompareOptions, resolve
from ga3c.machine import machine
from ga3c.options import parse_known
from tests.fake_comparison import rows
from tests.running import ROOT, SMALL, metrics

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), ROOT / "benchmarks" / "README.md"]
LABELS = {"sh", "python", "text", "json", "yaml", "dockerfile"}  # of blocks; sh and python are run
PROGRAMS = ("ga3c ", "make ", "pip ", "python ", "docker ", "mkdocs ")
OPTIONS = runpy.run_path(str(DOCS / "options.py"))
DOCKERS = {"--cpus", "--cpuset-cpus", "--init", "--ipc", "--shm-size", "--ulimit"}  # options that pages name
OPTION = r"(?<![\w-])--[a-z][a-z-]*[a-z]"


class Rule(NamedTuple):
    """What is done with commands of a pattern.

    ``words`` are appended to one that is run; else they are the reason. ``first`` is run too, before all others, which
    need what it leaves.
    """

    pattern: str
    do: Literal["first", "run", "long", "skip"]
    words: str = ""


COMPARED = "--modes ga3c --networks small --repeats 1 --warm-up-s 0 --minutes-each 0.2"
ONCE = "--warm-up-s 0 --repeats 1 --record record.jsonl"
RULES = [  # the first that fits counts
    Rule("ga3c export *", "first"),
    Rule("ga3c train CartPole-v1 * --out runs/cart-?", "first", "--total-steps 3000"),
    Rule("ga3c train --resume *", "run", "--total-steps 2000"),
    Rule("ga3c train --preset paper", "run", "--total-steps 600 --actors 4"),
    Rule("ga3c train CartPole-v1*", "run", "--total-steps 3000"),
    Rule("ga3c train*", "run", "--total-steps 600"),
    Rule("ga3c eval *", "run", "--episodes 2"),
    Rule("ga3c networks*", "run"),
    Rule("ga3c report *", "run"),
    Rule("ga3c play * --live*", "run", "--seconds 1"),
    Rule("ga3c play *", "run", "--seconds 1"),
    Rule("ga3c tune", "run", "--minutes 0.25"),
    Rule("ga3c compare --quick", "run", COMPARED),
    Rule("ga3c compare --plot-only *", "run"),
    Rule("ga3c compare *", "long", COMPARED),
    Rule("python benchmarks/throughput.py*", "long", f"--seconds 4 --no-limit {ONCE}"),
    Rule("python benchmarks/limits.py*", "long", "--seconds 0.1 --record record.jsonl"),
    Rule("python benchmarks/a3c.py*", "long", f"--seconds 4 {ONCE}"),
    Rule("python benchmarks/simulated.py*", "long", f"--seconds 4 {ONCE}"),
    Rule("python benchmarks/dynamic.py*", "long", "--minutes 0.5 --record record.jsonl"),
    Rule("python benchmarks/footprint.py*", "long", "--repeats 1 --seconds 1 --record record.jsonl"),
    Rule("python benchmarks/soak.py --interrupts *", "long", "--interrupts 1 --record record.jsonl"),
    Rule("python benchmarks/soak.py --crashes *", "long", "--crashes 1 --record record.jsonl"),
    Rule("python benchmarks/soak.py *", "long", "--minutes 1 --record record.jsonl"),
    Rule("python benchmarks/endings.py*", "long", "--runs 1 --busy 4 --record record.jsonl"),
    Rule("python benchmarks/queues.py*", "long", "--seconds 0.1 --kills 1 --repeats 1 --record record.jsonl"),
    Rule("python benchmarks/bad_input.py", "long", "--within-s 60 --record record.jsonl"),
    Rule("python benchmarks/tune.py", "long", "--minutes 0.25 --rounds 1 --final-rounds 0 --record record.jsonl"),
    Rule("make train*", "skip", "builds a virtual environment; what it starts, ga3c train, is run"),
    Rule("make test*", "skip", "is what runs this test"),
    Rule("make lint", "skip", "whoever runs the tests runs it beside them"),
    Rule("make docs", "skip", "builds a virtual environment; what it starts, mkdocs, is run"),
    Rule("pip install *", "skip", "would change the packages that the tests run with"),
    Rule("git clone *", "skip", "needs a network"),
    Rule("docker *", "skip", "needs Docker; the Dockerfile has tests of its own"),
    Rule("benchmarks/gpu.sh*", "skip", "needs a GPU, and measures for minutes"),
]
SHORT = {"total_steps": 3000}  # for what a block of Python trains


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page):
    """Each block of code: its label, its text and its line."""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type in ("fence", "code_block"):
            yield token.info, token.content, token.map[0] + 1


def lines_of(page):
    """What is typed, without comments; a line that goes on is put together."""
    for label, text, _ in blocks(page):
        for line in text.replace("\\\n", " ").splitlines() if label == "sh" else ():
            if typed := re.sub(r"(^|\s+)#.*", "", line).strip():
                yield typed


def rules_of(line):
    """The rule of each command of a line."""
    return [
        next((rule for rule in RULES if fnmatch.fnmatchcase(command, rule.pattern)), None)
        for command in line.split(" && ")
    ]


LINES = {line: name_of(page) for page in reversed(PAGES) for line in lines_of(page)}  # each once
PYTHON = [
    pytest.param(text, id=f"{name_of(page)}:{line}")
    for page in PAGES
    for label, text, line in blocks(page)
    if label == "python"
]


def lines_to(do):
    """Lines whose commands are all known, and of which the one that can do least is to be treated so."""
    order, found = ["first", "run", "long", "skip"], []
    for line, page in sorted(LINES.items(), key=lambda item: item[1]):
        rules = rules_of(line)
        if None not in rules and max(order.index(rule.do) for rule in rules) == order.index(do):
            found.append(pytest.param(line, id=f"{page}: {line}"))
    return found


def scripts():
    """Benchmarks, with the lines that name them."""
    found = {}
    for param in lines_to("long"):
        for script in re.findall(r"benchmarks/\w+\.py", param.values[0]):
            found.setdefault(script, []).append(param.values[0])
    return [pytest.param(script, lines, id=script) for script, lines in found.items()]


def run_as_typed(line, timeout=110):
    """Runs what is typed, in this folder; within this process where that can be: it has loaded what takes seconds."""
    if line.startswith("ga3c ") and not re.search(r"[|<>$*?]", line):
        code = 0
        with contextlib.suppress(SystemExit):  # --help
            code = cli.run(shlex.split(line)[1:])
        assert code == 0
        return
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-euo", "pipefail", "-c", line], env=environment, check=True, timeout=timeout)


def cut(line):
    """Its commands, each with what its rule appends."""
    return [f"{command} {rule.words}" for command, rule in zip(line.split(" && "), rules_of(line), strict=True)]


def file_of(text):
    """The file that a block of Python is."""
    named = re.match(r"# (\w+\.py)\n", text)
    return Path(named[1] if named else "block.py")


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """The folder of a reader who has trained, compared and exported; made once for all processes that test."""
    ours = tmp_path_factory.getbasetemp()
    shared = ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours
    folder = shared / "reader"
    with FileLock(shared / "reader.lock"):
        if not (folder / "outcomes.json").exists():  # written last
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            with contextlib.chdir(folder):
                _do_what_comes_first()
    return folder


def _do_what_comes_first():
    """The three dots in a folder's name are what the pages say in place of a time."""
    for env, steps in (("Pong-v5", 600), ("CartPole-v1", 3000)):
        run_as_typed(f"ga3c train {env} --total-steps {steps} --out runs/{env}-ga3c-... {' '.join(SMALL)}")
    for compared in (Path("runs/compare-Pong-v5"), Path("runs/quick")):
        compared.mkdir()
        made_up = [row | {"machine": machine()} for row in rows(("a3c", "ga3c"), ("small",), 2)]  # it can go on here
        (compared / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made_up))
    for param in PYTHON:
        file_of(param.values[0]).write_text(param.values[0])
    Path("benchmarks").symlink_to(ROOT / "benchmarks")
    outcomes = {}
    for param in lines_to("first"):
        (line,) = param.values
        try:
            for command in cut(line):
                run_as_typed(command)
            outcomes[line] = "done"
        except Exception as error:  # its own test fails, and those that need it
            outcomes[line] = repr(error)
    Path("outcomes.json").write_text(json.dumps(outcomes))


@pytest.fixture
def reader(home, tmp_path, monkeypatch):
    """This process is in a copy of that folder, which one test may write to."""
    shutil.copytree(home, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for processes that are started there
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DISPLAY", ":99")  # of which SDL makes a display that nobody sees
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(latency, "_SECONDS", 0.01)  # of each measurement of ga3c networks --out


def test_each_command_has_a_rule_that_says_how_it_is_tested():
    unknown = [f"{page}: {line}" for line, page in LINES.items() if None in rules_of(line)]
    assert not unknown, "RULES says how commands are tested; these have no rule"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_labelled_and_commands_are_in_those_that_are_run(page):
    for label, text, line in blocks(page):
        assert label in LABELS, f"line {line}"
        if label != "sh":
            assert not [typed for typed in text.splitlines() if typed.lstrip("$ ").startswith(PROGRAMS)], f"line {line}"


@pytest.mark.parametrize("line", lines_to("first"))
def test_a_command_that_others_need_did_what_it_should(home, line):
    assert json.loads((home / "outcomes.json").read_text())[line] == "done"


@pytest.mark.parametrize("line", lines_to("run"))
@pytest.mark.usefixtures("reader")
def test_a_command_of_the_docs_does_what_it_should(capfd, line):
    for command in cut(line):
        run_as_typed(command)
        assert capfd.readouterr().out


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("line", lines_to("long"))
@pytest.mark.usefixtures("reader")
def test_a_command_that_takes_minutes_does_what_it_should(capfd, line):
    for command in cut(line):
        run_as_typed(command, timeout=800)
        assert capfd.readouterr().out


@pytest.mark.parametrize("line", [param for param in lines_to("long") if param.values[0].startswith("ga3c compare")])
def test_a_comparison_of_minutes_could_begin(line):
    options, rest = parse_known(CompareOptions, shlex.split(line)[2:], "ga3c compare")
    assert resolve(options, rest).minutes_each > 0


@pytest.mark.parametrize(("script", "lines"), scripts())
def test_a_benchmark_of_minutes_has_the_options_that_are_named(capsys, monkeypatch, script, lines):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / script), run_name="__main__")
    known = capsys.readouterr().out + OPTIONS["render"]()  # what a script does not know it hands on to ga3c train
    assert set(re.findall(OPTION, " ".join(lines))) <= set(re.findall(OPTION, known))


@pytest.mark.parametrize("line", lines_to("skip"))
def test_a_command_that_a_test_cannot_run(line):
    pytest.skip(next(rule.words for rule in rules_of(line) if rule.do == "skip"))


@pytest.mark.parametrize("text", PYTHON)
@pytest.mark.usefixtures("reader")
def test_python_of_the_docs_runs(monkeypatch, text):
    if hasattr(ga3c, "train"):
        monkeypatch.setattr(ga3c, "train", lambda *a, _train=ga3c.train, **options: _train(*a, **options | SHORT))
    file_of(text).write_text(text)
    runpy.run_path(str(file_of(text)), run_name="__main__")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_and_picture_is_there(page):
    for token in MarkdownIt().parse(page.read_text()):
        for child in token.children or ():
            target = str(child.attrs.get("href") or child.attrs.get("src") or "").partition("#")[0]
            assert re.match("https?:", target) or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES[:-1], ids=name_of)
def test_every_option_that_a_page_names_is_one(page):
    there = set(re.findall(OPTION, (DOCS / "options.md").read_text())) | DOCKERS | {"--long"}
    for token in MarkdownIt().parse(page.read_text()):
        for child in token.children or ():
            if child.type == "code_inline" and child.content.startswith(("--", "ga3c ")):
                assert set(re.findall(OPTION, child.content)) <= there


def test_the_page_of_options_is_what_the_program_says():
    assert (DOCS / "options.md").read_text() == OPTIONS["render"](), "python docs/options.py writes it anew"


@pytest.mark.parametrize("command", OPTIONS["commands"]())
def test_every_option_that_help_tells_is_on_the_page_of_options(capsys, command):
    with pytest.raises(SystemExit):
        cli.run([command, "--help"])
    told = set(re.findall(OPTION, capsys.readouterr().out)) - {"--help"}
    page = (DOCS / "options.md").read_text()
    (section,) = re.findall(rf"^## ga3c {command}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert told
    assert told <= set(re.findall(OPTION, section))


def test_the_glossary_has_every_figure_that_a_run_writes_and_no_other(home):
    page = (DOCS / "metrics.md").read_text()
    for kind in ("rates", "episode", "totals"):
        (section,) = re.findall(rf"^## [^\n]* kind `{kind}`\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
        line = metrics(home / "runs" / "CartPole-v1-ga3c-...", kind)[-1]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(line)
    for role, activities in metrics(home / "runs" / "CartPole-v1-ga3c-...", "rates")[-1]["role_seconds"].items():
        (told,) = re.findall(rf"^\| `{role}` \| (.*) \|$", page, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", told)) == set(activities)


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    run_as_typed(f"python -m mkdocs build --strict --quiet -f {ROOT / 'mkdocs.yml'} -d {tmp_path / 'site'}")
    for page in (tmp_path / "site").glob("*.html"):
        assert not re.findall(r"<(?:script|img|iframe)\b[^>]*\ssrc=[\"']?https?:[^>]*>", page.read_text())
        assert not re.findall(r"<link\b[^>]*\bstylesheet[^>]*https?:[^>]*>", page.read_text())
