"""The files for Docker; docs/docker.md tells what else of them was tried, since no test builds the image."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT

HADOLINT = Path(sys.executable).with_name("hadolint")


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint comes with ga3c[dev]")
def test_hadolint_finds_nothing_in_the_dockerfile():
    run = subprocess.run([HADOLINT, ROOT / "docker" / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


def has_compose():
    docker = shutil.which("docker")
    return docker and not subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode


@pytest.mark.skipif(not has_compose(), reason="needs the docker command with its Compose plugin")
def test_compose_reads_every_service():
    options = ["--file", ROOT / "docker" / "compose.yaml", "--profile", "*", "config", "--quiet"]
    run = subprocess.run(["docker", "compose", *options], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
