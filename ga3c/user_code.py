"""Runs code of the user's: modules, environments, networks. It may do anything to the process that runs it.

* Modules are imported here and nowhere else. A script without a main guard begins a run when it is imported; that run
  is refused, and the script is imported up to there. So a run inside a worker is impossible, and the number of
  processes has a bound.
* If user code forks, and the copy returns from user code, the copy is ended: it must not become a second learner or a
  second actor.
* Standard streams that user code has closed are reopened: otherwise the next file to be opened would get their number.
"""

import contextlib
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

from ga3c.errors import UsageError

WORKER: Final = "GA3C_WORKER"  # environment variable of a worker, and of all that it starts: the worker's process id
USER_ERRORS: Final = (Exception, SystemExit)  # what counts as a failure of user code; Ctrl-C does not

# ``module``: the name that this thread is importing; ``partial``: what that module had defined when it began a run.
_IMPORTING: Final = "GA3C_IMPORTING"  # environment variable: the process that imports a user's module, and its name

_in_worker = False  # this process is a worker, whatever user code has done to the environment's variables
_importing = threading.local()
_cut_short: set[str] = set()  # modules that were imported up to a run


class NestedRunError(UsageError):
    """A run was begun by code that a run imports, or that runs inside one of its workers."""


def enter_worker() -> None:
    """Marks this process, and every process that it starts, as belonging to a worker."""
    global _in_worker  # noqa: PLW0603 (of the process)
    _in_worker = True
    os.environ[WORKER] = str(os.getpid())


def in_worker() -> bool:
    """Whether this process is a worker, or was started by one."""
    return _in_worker or WORKER in os.environ


def refuse_nested_run() -> None:
    """Refuses a run whose workers would begin runs of their own, and so on without end.

    Raises:
      NestedRunError: this process belongs to a worker, or this thread is importing a user's module.
    """
    module = getattr(_importing, "module", None) or _imported_by_another_process()
    if module is not None:
        _importing.partial = sys.modules.get(module)
        raise NestedRunError(
            f"module {module!r} begins a run while it is imported; expected that call under"
            ' `if __name__ == "__main__":`'
        )
    if in_worker():
        raise NestedRunError(
            "a run was begun inside a worker of another run; expected runs to be begun outside of environments, and"
            ' in modules under `if __name__ == "__main__":`'
        )


def import_module(name: str) -> ModuleType:
    """Imports a module of the user's, or returns the part of it that comes before it begins a run.

    The script that this process runs is not executed a second time under its own name.

    Raises:
      Exception, SystemExit: whatever the module raises.
    """
    outer = getattr(_importing, "module", None)
    _importing.module, _importing.partial = name, None
    try:
        with contained(), _marked(name):
            if name not in sys.modules and _is_main(name):
                sys.modules[name] = sys.modules["__main__"]
            return importlib.import_module(name)
    except USER_ERRORS:  # a NestedRunError, or what the module made of it
        partial: ModuleType | None = _importing.partial
        if partial is None:
            raise
        _cut_short.add(name)
        sys.modules[name] = partial  # entry points that name it find what it has defined
        return partial
    finally:
        _importing.module = outer


def import_path() -> list[str]:
    """``sys.path`` for another process: text, and independent of the working directory."""
    return [os.path.abspath(os.fsdecode(entry)) for entry in sys.path if isinstance(entry, str | bytes | os.PathLike)]


def was_cut_short(name: str) -> bool:
    """Whether a module was imported only up to a run that it begins."""
    return name in _cut_short


def _imported_by_another_process() -> str | None:
    """The module whose import has started this process; None if no import has."""
    process, _, module = os.environ.get(_IMPORTING, "").partition(" ")
    return module if process and process != str(os.getpid()) else None


@contextmanager
def _marked(name: str) -> Iterator[None]:
    """Tells the processes that a module starts that it is being imported."""
    outer = os.environ.get(_IMPORTING)
    os.environ[_IMPORTING] = f"{os.getpid()} {name}"
    try:
        yield
    finally:
        os.environ.pop(_IMPORTING, None)
        if outer is not None:
            os.environ[_IMPORTING] = outer


def main_module_name() -> str | None:
    """The name under which other processes can import the script that this process runs; None if there is none."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m
        name: str = spec.name
        return name
    file = getattr(main, "__file__", None)
    if file is None:  # an interactive session, python -c
        return None
    name = os.path.splitext(os.path.basename(file))[0]
    return name if _is_main(name) else None


def _is_main(name: str) -> bool:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name == name:
        return True
    file = getattr(main, "__file__", None)
    if file is None:
        return False
    with contextlib.suppress(ImportError, ValueError, AttributeError, OSError):
        found = importlib.util.find_spec(name)
        return found is not None and found.origin is not None and os.path.samefile(found.origin, file)
    return False


@contextmanager
def contained() -> Iterator[None]:
    """Undoes what user code in the block may do: fork, close standard streams, put non-text entries on ``sys.path``."""
    process, streams = os.getpid(), (sys.stdout, sys.stderr)
    kept = _duplicate_streams()
    try:
        yield
    finally:
        end_if_forked(process)
        sys.stdout, sys.stderr = sys.stdout or streams[0], sys.stderr or streams[1]
        _restore_streams(kept)
        # The import system ignores other entries than text; parts of the standard library fail at them.
        sys.path[:] = [os.fsdecode(entry) for entry in sys.path if isinstance(entry, str | bytes | os.PathLike)]


def end_if_forked(process: int) -> None:
    """Ends this process if it is a copy that user code has made of ``process``."""
    if os.getpid() != process:
        os._exit(0)


def _duplicate_streams() -> dict[int, int]:
    """Copies of the standard streams' descriptors; one that is closed already becomes the null device."""
    kept = {}
    for stream in (0, 1, 2):
        with contextlib.suppress(OSError):  # no more descriptors are allowed
            if not _is_open(stream):
                os.open(os.devnull, os.O_RDWR)  # takes the stream's own number: it is the lowest that is free
            kept[stream] = os.dup(stream)
    return kept


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _restore_streams(kept: dict[int, int]) -> None:
    for stream, copy in kept.items():
        if not _is_open(stream):
            os.dup2(copy, stream)
        with contextlib.suppress(OSError):  # user code has closed it
            os.close(copy)
    if sys.stdout is not None and sys.stdout.closed:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  (as long as the process)
    if sys.stderr is not None and sys.stderr.closed:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
