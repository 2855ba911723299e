"""Process-wide state as it was before user code could change it: working directory, umask, environment variables."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ga3c.errors import working_directory

_newest: "list[Surroundings]" = []  # at most one


@dataclass(frozen=True)
class Surroundings:
    """A snapshot of process-wide state, to be looked up or restored later.

    Attributes:
      folder: the working directory, absolute; new runs make their folders in it.
      umask: the permission bits that new files do not get.
      variables: the environment variables.
    """

    folder: Path
    umask: int
    variables: dict[str, str]

    @classmethod
    def now(cls) -> Self:
        """As they are; paths are shown relative to this working directory from now on.

        Raises:
          UsageError: the working directory has been deleted.
        """
        found = cls(Path(working_directory()), _umask(), dict(os.environ))
        _newest[:] = [found]
        return found

    def restore(self) -> None:
        """Gives all of it back, for whatever this process starts from here on."""
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.variables)
        self.restore_umask()

    def restore_umask(self) -> None:
        """For files that are about to be made."""
        os.umask(self.umask)


def _umask() -> int:
    """The current umask. It is read from /proc, since the system call cannot read it without changing it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"^Umask:\s*([0-7]+)$", status, re.MULTILINE)
    return int(found[1], 8) if found else 0o022


def permit(file: int) -> None:
    """Gives a new file, by its descriptor, the permissions that it would have under the umask of the snapshot."""
    if _newest:
        os.fchmod(file, 0o666 & ~_newest[0].umask)


def shown(path: Path) -> str:
    """A path as the user would type it: relative to the working directory of before, if it lies inside."""
    if _newest and path.is_relative_to(_newest[0].folder):
        return str(path.relative_to(_newest[0].folder))
    return str(path)
