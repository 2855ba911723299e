"""What is released: a wheel and an sdist, which work where nothing else is installed."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement

import ga3c
from tests.running import ROOT, SMALL

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def command(*arguments, cwd):
    """Runs a command that finds nothing of this checkout, and returns what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        list(map(str, arguments)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def build(folder, *options):
    command(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, *options, ROOT, cwd=folder)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("released")
    build(folder)
    [sdist], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def needed(requirements):
    """The installed distributions that requirements ask for, and all that those ask for in turn."""
    found, todo = {}, [(line, "") for line in requirements]
    while todo:
        line, of_extra = todo.pop()
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        for extra in {"", *requirement.extras}:
            if (requirement.name, extra) not in found:
                found[requirement.name, extra] = distribution(requirement.name)
                todo += [(line, extra) for line in found[requirement.name, extra].requires or []]
    return {one.name: one for one in found.values()}.values()


def environment_of(wheel, folder):
    """An environment of the wheel and what its metadata names: links to what the tests' own environment has of that.

    Downloaded once more it would be gigabytes. ``pip check`` finds what is missing or of a wrong version.
    """
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    python = folder / "bin" / "python"
    for one in needed(PROJECT["dependencies"]):
        for file in one.files:
            if ".." not in file.parts:
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                (packages / file).symlink_to(one.locate_file(file))
    pip = [sys.executable, "-m", "pip", "--python", python]
    command(*pip, "install", "--no-index", "--no-deps", wheel, cwd=folder)
    command(*pip, "check", cwd=folder)
    return folder / "bin" / "ga3c"


@pytest.mark.timeout(300)
def test_the_wheel_works_where_nothing_else_is_installed(released, tmp_path):
    installed = environment_of(released[1], tmp_path / "environment")
    assert command(installed, "--version", cwd=tmp_path) == f"ga3c {ga3c.__version__}\n"
    assert "677,943" in command(installed, "networks", cwd=tmp_path)
    said = command(installed, "train", "CartPole-v1", "--total-steps", 600, "--out", "run", *SMALL, cwd=tmp_path)
    assert "done after" in said
    assert list((tmp_path / "run").glob("checkpoint-*.safetensors"))
    where = "import ga3c, sys; sys.exit(not ga3c.__file__.startswith(sys.prefix))"
    command(installed.with_name("python"), "-c", where, cwd=tmp_path)


def test_the_wheel_holds_the_package_and_nothing_else(released):
    with zipfile.ZipFile(released[1]) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(f"ga3c-{ga3c.__version__}.dist-info/METADATA").decode()
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "ga3c").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    assert {name for name in names if ".dist-info/" not in name} == package
    assert f"ga3c-{ga3c.__version__}.dist-info/licenses/LICENSE" in names
    assert "\nLicense-Expression: MIT\n" in metadata


def test_the_sdist_holds_what_the_tests_need_but_no_records(released):
    with tarfile.open(released[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    tests = {f"tests/{path.name}" for path in (ROOT / "tests").glob("*.py")}
    assert names >= tests | {"pyproject.toml", "constraints.txt", "Makefile", "LICENSE", "docker/Dockerfile"}
    assert not [name for name in names if re.search(r"results|__pycache__|\.jsonl|\.venv|\.peers/|^runs|^dist", name)]


def test_the_sdist_and_the_checkout_make_the_same_wheel(released, tmp_path):
    build(tmp_path, "--wheel")
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name == released[1].name == f"ga3c-{ga3c.__version__}-py3-none-any.whl"
    assert wheel.read_bytes() == released[1].read_bytes()


def test_the_version_is_written_once():
    assert PROJECT["dynamic"] == ["version"]
    files = [ROOT / "pyproject.toml", *ROOT.glob("docker/*"), *(ROOT / "ga3c").rglob("*.py")]
    written = [path.name for path in files if re.search(rf"\b{re.escape(ga3c.__version__)}\b", path.read_text())]
    assert written == ["__init__.py"]


def test_every_dependency_is_named_with_its_licence():
    licences = (ROOT / "docs" / "licences.md").read_text()
    extras = PROJECT["optional-dependencies"].values()
    names = [Requirement(line).name for lines in (PROJECT["dependencies"], *extras) for line in lines]
    assert not [name for name in names if not re.search(rf"^\| {re.escape(name)} \| \S", licences, re.MULTILINE)]
