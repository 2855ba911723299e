"""Short films of a run while it trains (``--record-every``).

Each is made by a process of its own at a low priority, which plays the run's newest checkpoint. That costs the
process's start, some seconds of a core. A thread would not need them, but codecs, environments and torch's global
random numbers would then meet the model's: a crash in one would end the run, and the same seed would no longer give the
same weights.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ga3c.folder import list_checkpoints
from ga3c.user_code import import_path

FOLDER = "clips"
SECONDS = 15.0  # of play in a film
_LIMIT_S = 600.0  # for one to be made: an environment may hang
_NICE = 10  # a tenth of what a process gets that competes for a core; at 19 a film on busy cores takes for ever


class Recorder:
    """Has a film made every few minutes. It is asked from the run's loop, and never makes it wait."""

    def __init__(
        self, folder: Path, every_min: float | None, say: Callable[[str], None], variables: Mapping[str, str]
    ) -> None:
        """``folder`` is the run's; with ``every_min`` None there are no films; ``variables`` are its environment."""
        self._folder = folder
        self._every_s = None if every_min is None else 60 * every_min
        self._say = say
        self._variables = variables
        self._began = time.monotonic()  # the last film, or the run
        self._process: subprocess.Popen[bytes] | None = None
        self._failed = False

    def tick(self) -> None:
        """Begins a film that is due, if there is a checkpoint that has none, and looks after the one being made."""
        if self._every_s is None:
            return
        passed_s = time.monotonic() - self._began
        if self._process is None:
            if passed_s >= self._every_s:
                self._begin()
        elif self._process.poll() is not None:
            self._end(self._process)
        elif passed_s > _LIMIT_S:
            self._kill(self._process)

    def close(self) -> None:
        """Ends what is being filmed; nothing of it is left."""
        if self._process is not None:
            self._kill(self._process)
            self._process.communicate()
            self._process = None
            self._errors.close()
        self._clean()

    def _kill(self, process: "subprocess.Popen[bytes]") -> None:
        """With what the environment has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def _clean(self) -> None:
        """Nobody is filming."""
        for half_written in (self._folder / FOLDER).glob("*.partial"):
            half_written.unlink(missing_ok=True)

    def _begin(self) -> None:
        checkpoints = list_checkpoints(self._folder)
        if not checkpoints:
            return
        if _film_of(checkpoints[-1]).exists():
            return
        self._began = time.monotonic()
        try:
            (self._folder / FOLDER).mkdir(exist_ok=True)
            self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  (unlike a pipe, it is never full)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ga3c.recorder", str(self._folder)],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors,
                env={**self._variables, "PYTHONPATH": os.pathsep.join(import_path())},
                start_new_session=True,  # a terminal's Ctrl-C is the run's to handle
            )  # fmt: skip
        except OSError as error:
            self._fail(str(error))

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        process.communicate()
        self._process = None
        self._clean()
        with self._errors as errors:
            errors.seek(0)
            said = errors.read().strip().splitlines()
        if process.returncode != 0:
            self._fail(said[-1] if said else f"it ended with exit code {process.returncode}")

    def _fail(self, why: str) -> None:
        """Says it once; the next film is tried all the same."""
        if not self._failed:
            self._say(f"--record-every: a film was not made: {why}; the run goes on")
        self._failed = True


def _film_of(checkpoint: Path) -> Path:
    return checkpoint.parent / FOLDER / f"{checkpoint.stem.replace('checkpoint', 'clip')}.mp4"


def _film(folder: Path) -> int:
    """The process's half; returns its exit code."""
    os.nice(_NICE)
    threading.Thread(target=_leave_with_the_run, args=(folder / FOLDER,), daemon=True).start()
    import torch
    from setproctitle import setproctitle

    from ga3c.errors import UsageError
    from ga3c.play import PlayOptions, play

    setproctitle("ga3c: recorder")
    torch.set_num_threads(1)
    checkpoint = list_checkpoints(folder)[-1]  # now: one that was the newest before all this was loaded may be gone
    try:
        return play(
            PlayOptions(
                checkpoint, out=_film_of(checkpoint), episodes=1000, seconds=SECONDS, device="cpu", explain=True
            )
        )
    except UsageError as error:
        print(error, file=sys.stderr)
        return 1


def _leave_with_the_run(clips: Path) -> None:
    """Standard input is a pipe whose other end only the learner has: it ends when that is gone, however it went."""
    os.read(0, 1)  # without Python's lock of that file, which it wants when the process ends
    for half_written in clips.glob("*.partial"):
        half_written.unlink(missing_ok=True)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(_film(Path(sys.argv[1])))
