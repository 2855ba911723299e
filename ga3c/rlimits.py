"""What a run needs the system to allow, asked for before anything is started."""

import resource

from ga3c.errors import UsageError

_OTHERS = 96  # libraries, logs, checkpoints, and room to spare
_AN_ACTOR = 3  # its socket; while it is started, its memory and its own end of the socket


def provide_descriptors(actors: int) -> None:
    """Raises this process's limit of open files, if it is too low for so many actors.

    Raises:
      UsageError: the system does not allow as many; says which limit, and what would do.
    """
    needed = _OTHERS + _AN_ACTOR * actors
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        most = max(1, (hard - _OTHERS) // _AN_ACTOR)
        raise UsageError(
            f"--actors: {actors} actors need {needed} open files, and this system allows {hard} a process;"
            f" ulimit -n {needed}, or --actors {most}, would be right"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
