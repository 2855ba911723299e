import contextlib
import os
import signal
from pathlib import Path

import pytest
import torch

from tests.running import roles, wait_for

torch.set_num_threads(1)
for display in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
    os.environ.pop(display, None)  # no test opens a window on the screen of whoever runs it
# Where the tests run in the background of a shell it is ignored, by them and by what they start; here it is sent.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run what takes minutes a test too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        skip_long = pytest.mark.skip(reason="takes minutes; --long runs it")
        for item in items:
            if "long" in item.keywords:
                item.add_marker(skip_long)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device, and this machine has none")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind():
    """No test leaves a child process, or more descriptors than torch and TensorBoard open once for themselves."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before + 8
    children = []
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            children += (thread / "children").read_text().split()
    assert not children


@pytest.fixture
def no_process_and_no_shared_memory_is_left(tmp_path):
    """For tests that start runs in ``tmp_path``."""
    before = set(os.listdir("/dev/shm"))
    yield
    assert wait_for(lambda: not roles(tmp_path), timeout=10), roles(tmp_path)
    assert set(os.listdir("/dev/shm")) == before
