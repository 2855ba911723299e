"""The import rules: arrows go down only, and actors never see torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ga3c"

# What each room may import of the package. A row names everything that is allowed, so that a new arrow is a decision.
ALLOWED = {
    "__init__": set(),
    "__main__": {"cli"},
    "errors": set(),
    "returns": set(),
    "losses": set(),
    "optim": set(),
    "networks": {"errors"},
    "slabs": set(),
    "channels": {"slabs"},
    "queues": {"channels", "slabs"},
    "envs": {"envs", "errors"},
    "envs.base": {"errors"},
    "envs.envpool_backend": {"envs.base"},
    "envs.gymnasium_backend": {"envs.base", "errors"},
    "machine": set(),
    "metrics": {"channels"},
    "model": {"errors", "losses", "metrics", "optim"},
    "actor": {"channels", "envs", "slabs"},
    "predictor": {"channels", "metrics", "model", "queues"},
    "trainer": {"metrics", "model", "queues", "returns"},
    "forkserver": {"actor", "channels", "envs", "slabs"},
    "supervisor": {"channels", "forkserver", "metrics", "queues", "slabs"},
    "config": {"envs", "errors", "losses", "model", "networks", "optim"},
    "checkpoint": {"config", "errors"},
    "ga3c": {
        "checkpoint",
        "config",
        "envs",
        "forkserver",
        "metrics",
        "model",
        "predictor",
        "queues",
        "slabs",
        "supervisor",
        "trainer",
    },
    "report": set(),
    "run": {
        "checkpoint",
        "config",
        "envs",
        "errors",
        "ga3c",
        "metrics",
        "model",
        "networks",
        "optim",
        "report",
        "machine",
    },
    "evaluate": {"checkpoint", "envs", "model", "networks", "optim"},
    "compare_cells": set(),
    "compare_figures": set(),
    "compare_plan": {"compare_cells", "compare_figures"},
    "compare_record": {"compare_cells", "errors"},
    "compare_progress": set(),
    "compare_options": {"compare_plan", "config", "envs", "errors", "model", "networks"},
    "compare": {
        "compare_cells",
        "compare_figures",
        "compare_options",
        "compare_plan",
        "compare_progress",
        "compare_record",
        "errors",
        "machine",
    },
    "compare_report": {"compare_cells", "compare_figures", "compare_record"},
    "chart_style": {"compare_cells", "compare_figures", "compare_report"},
    "charts": {"chart_style", "charts_over_time", "compare_cells", "compare_figures", "networks"},
    "charts_over_time": {"chart_style", "compare_cells", "compare_figures"},
    "compare_command": {
        "charts",
        "compare",
        "compare_cells",
        "compare_options",
        "compare_record",
        "compare_report",
        "errors",
        "report",
    },
    "cli": {"compare_command", "config", "envs", "errors", "evaluate", "model", "networks", "report", "run"},
}
WITHOUT_TORCH = ["__init__", "actor", "channels", "envs", "errors", "forkserver", "queues", "returns", "slabs"]


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
    return {("envs" if name.startswith("envs.") and room(path).partition(".")[0] != "envs" else name) for name in found}


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=room)
def test_a_room_imports_only_what_it_may(path):
    allowed = ALLOWED[room(path)]
    if room(path) == "envs":
        allowed = {"envs.base", "envs.envpool_backend", "envs.gymnasium_backend", "errors"}
    assert imports(path) - {""} <= allowed


def test_every_row_of_the_table_is_a_room():
    assert set(ALLOWED) == {room(path) for path in MODULES}


def test_the_roles_do_not_import_each_other():
    roles = {"actor", "predictor", "trainer"}
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
