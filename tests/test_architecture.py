"""The import rules: arrows go down only, and actors never see torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ga3c"

# What each room may import of the package. A row names everything that is allowed, so that a new arrow is a decision.
ALLOWED = {
    "__init__": {"api", "envs", "errors", "events", "policy"},
    "__main__": {"cli", "descendants", "late", "signals"},
    "errors": set(),
    "pictures": set(),
    "returns": set(),
    "curves": {"errors"},
    "user_code": {"errors"},
    "descendants": {"user_code"},
    "surroundings": {"errors"},
    "choices": {"curves", "errors", "pictures", "user_code"},
    "watchdog": {"descendants"},
    "losses": {"choices"},
    "optim": {"choices"},
    "scaling": set(),
    "networks": {"choices", "errors", "pictures", "scaling", "user_code"},
    "flops": {"errors", "networks", "user_code"},
    "events": {"user_code"},
    "envs": {"envs.actions", "envs.base", "envs.envpool_backend", "envs.gymnasium_backend", "envs.player", "errors"},
    "envs.base": {"errors", "pictures"},
    "envs.actions": {"envs.base"},
    "envs.player": {"envs.base"},
    "envs.envpool_backend": {"envs.base", "errors"},
    "envs.atari": {"envs.base", "errors"},
    "envs.gymnasium_backend": {"envs.atari", "envs.base", "envs.envpool_backend", "errors", "user_code"},
    "envs.gym_vector": {"envs", "errors"},
    "slabs": {"envs", "pictures"},
    "channels": {"envs", "errors", "slabs"},
    "queues": {"channels", "slabs"},
    "machine": set(),
    "metrics": {"envs", "events", "machine"},
    "metrics_writer": set(),
    "resident": {"slabs"},
    "late": set(),
    "locks": set(),
    "cuda": set(),
    "device": {"choices", "curves", "errors"},
    "model": {"choices", "cuda", "locks", "losses", "metrics", "optim", "resident", "slabs"},
    "simulated": {"choices", "curves", "metrics", "model", "slabs"},
    "latency": {"build", "config", "curves", "envs", "errors", "machine", "model", "slabs"},
    "build": {
        "config", "curves", "device", "envs", "flops", "model", "networks", "optim", "scaling", "simulated",
        "supervisor", "watchdog",
    },
    "batches": {"model", "returns", "slabs"},
    "actor": {"channels", "envs", "slabs"},
    "predictor": {"channels", "metrics", "model", "queues", "slabs"},
    "trainer": {"batches", "metrics", "model", "queues"},
    "forkserver": {"channels", "errors", "user_code"},
    "forking": {"channels", "descendants", "forkserver", "scheduling", "user_code"},
    "options": {"errors"},
    "rlimits": {"errors"},
    "scheduling": set(),
    "signals": set(),
    "supervisor": {"channels", "descendants", "envs", "errors", "forkserver", "late"},
    "config": {"choices", "envs", "errors"},
    "film": {"errors"},
    "presets": {"choices", "config", "curves", "envs", "errors", "film", "folder"},
    "checkpoint": {"config", "errors", "folder", "pictures", "surroundings"},
    "collector": {"envs", "model", "slabs"},
    "shared": {"checkpoint"},
    "worker": {
        "batches", "channels", "choices", "collector", "config", "curves", "device", "envs", "metrics", "model",
        "networks", "optim", "shared", "simulated",
    },
    "ga3c": {
        "batches", "config", "dynamic", "forkserver", "predictor", "presets", "sampler", "supervisor",
        "system", "trainer",
    },
    "sampler": {
        "actor", "channels", "choices", "config", "envs", "forkserver", "metrics", "queues", "slabs", "supervisor",
    },
    "launch": {
        "config", "envs", "events", "forkserver", "presets", "display", "rlimits", "run", "sampler", "scheduling",
        "surroundings", "user_code",
    },
    "a3c": {"channels", "forkserver", "metrics", "shared", "supervisor", "system", "worker"},
    "a2c": {"batches", "collector", "envs", "forkserver", "supervisor", "system", "user_code"},
    "system": {"checkpoint", "config", "envs", "forkserver", "metrics", "model", "sampler", "supervisor"},
    "bottleneck": set(),
    "display": {"bottleneck"},
    "run": {
        "a2c", "a3c", "build", "checkpoint", "config", "curves", "envs", "errors", "events", "forkserver", "ga3c",
        "folder", "machine", "metrics", "metrics_writer", "model", "display", "recorder", "sampler",
        "signals", "surroundings", "system",
    },
    "folder": {"config", "errors", "surroundings"},
    "policy": {"checkpoint", "config", "device", "envs", "errors", "networks"},
    "export": {"choices", "device", "envs", "errors", "policy", "surroundings"},
    "eval_progress": {"display"},
    "evaluate": {"envs", "errors", "eval_progress", "policy", "statistics"},
    "statistics": set(),
    "windows": set(),
    "agents": {"config", "curves", "statistics"},
    "scores": {
        "agents", "display", "errors", "eval_progress", "evaluate", "folder", "options", "policy", "signals",
        "statistics",
    },
    "play": {"play.command"},
    "play.game": {"envs", "policy"},
    "play.picture": {"play.game"},
    "play.window": {"play.game"},
    "play.terminal": {"display", "errors", "play.game"},
    "play.command": {
        "envs", "errors", "film", "folder", "options", "play.game", "play.picture", "play.terminal", "play.window",
        "policy", "signals", "surroundings",
    },
    "recorder": {"errors", "folder", "play", "user_code"},
    "compare": {"compare.command"},
    "compare.cells": set(),
    "compare.figures": {"statistics", "windows"},
    "compare.plan": {"compare.cells", "compare.figures"},
    "compare.record": {"compare.cells", "errors"},
    "compare.progress": {"display"},
    "compare.options": {"choices", "compare.plan", "config", "device", "envs", "errors", "networks", "options"},
    "compare.grid": {
        "compare.cells", "compare.figures", "compare.options", "compare.plan", "compare.progress", "compare.record",
        "errors", "machine", "signals",
    },
    "compare.report": {"compare.cells", "compare.figures", "compare.record", "statistics"},
    "compare.chart_style": {"compare.cells", "compare.figures", "compare.report"},
    "compare.charts": {
        "compare.cells", "compare.chart_style", "compare.charts_over_time", "compare.figures", "flops", "networks",
    },
    "compare.charts_over_time": {
        "compare.cells", "compare.chart_style", "compare.figures", "statistics", "windows",
    },
    "compare.command": {
        "compare.cells", "compare.charts", "compare.grid", "compare.options", "compare.record", "compare.report",
        "errors", "options", "display", "surroundings",
    },
    "resolve": {"choices", "config", "curves", "device", "envs", "errors", "folder", "options", "presets", "watchdog"},
    "report": {"report.command"},
    "report.runs": {"config", "curves", "envs", "errors", "statistics"},
    "report.style": set(),
    "report.page": {"errors", "report.style"},
    "report.charts": {"agents", "report.runs", "report.style", "statistics", "windows"},
    "report.tables": {"agents", "bottleneck", "report.page", "report.runs", "statistics", "windows"},
    "report.comparison": {"compare", "report.charts", "report.page", "report.style", "statistics"},
    "report.command": {
        "agents", "compare", "display", "errors", "options", "report.charts", "report.comparison", "report.page",
        "report.runs", "report.tables",
    },
    "tune": {"tune.command"},
    "tune.search": {"config"},
    "tune.trials": {
        "checkpoint", "config", "envs", "errors", "ga3c", "metrics", "model", "system", "tune.search",
    },
    "tune.report": {"tune.search"},
    "tune.command": {
        "build", "config", "envs", "errors", "folder", "machine", "options", "presets", "display", "resolve",
        "rlimits", "scheduling", "signals", "tune.report", "tune.search", "tune.trials",
    },
    "dynamic": {"choices"},
    "cli": {
        "choices", "compare", "config", "curves", "device", "display", "envs", "errors", "export", "flops", "folder",
        "latency", "launch", "networks", "options", "play", "report", "resolve", "scores", "surroundings", "tune",
    },
    "api": {"choices", "config", "envs", "errors", "events", "launch", "policy", "presets", "resolve", "user_code"},
}  # fmt: skip
WITHOUT_TORCH = [
    "__init__", "actor", "agents", "api", "channels", "cli", "choices", "compare", "compare.options", "config", "envs",
    "errors", "events", "film", "folder", "forking", "forkserver", "launch", "presets", "queues", "report", "resolve",
    "returns", "sampler", "scores", "slabs", "tune",
]  # fmt: skip


def room(path):
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(path):
    """Rooms of the package that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ga3c"):
            base = node.module.removeprefix("ga3c").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                is_room = (PACKAGE / inner.replace(".", "/")).with_suffix(".py").exists()
                found.add(inner if is_room else base)
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path.name} has a relative import"
    house = room(path).partition(".")[0]
    # From outside, a package is one room.
    return {name if name.partition(".")[0] == house else name.partition(".")[0] for name in found}


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=room)
def test_a_room_imports_only_what_it_may(path):
    assert imports(path) - {""} <= ALLOWED[room(path)]


def test_every_row_of_the_table_is_a_room():
    assert set(ALLOWED) == {room(path) for path in MODULES}


def test_the_page_for_contributors_says_what_is_in_each_room():
    page = (PACKAGE.parent / "docs" / "contributing.md").read_text()
    table = [line.split("|")[1] for line in page.partition("| room |")[2].splitlines() if line.startswith("| `")]
    told = [name for cell in table for name in re.findall("`([a-z0-9_]+)`", cell)]
    assert sorted(told) == sorted({room.partition(".")[0] for room in ALLOWED} - {"__init__", "__main__"})


def test_the_roles_do_not_import_each_other():
    roles = {"actor", "predictor", "trainer", "worker"}
    for role in roles:
        assert not ALLOWED[role] & roles


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_what_an_actor_imports_brings_no_torch(module):
    name = "ga3c" if module == "__init__" else f"ga3c.{module}"
    code = f"import sys, {name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_no_room_is_a_grab_bag_and_none_is_crowded():
    for path in MODULES:
        assert path.stem not in ("utils", "helpers", "common", "misc")
        assert len(path.read_text().splitlines()) <= 350, path.name
