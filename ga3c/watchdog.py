"""An end for what the learner itself asks of an environment: code of others, which may never return."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def time_limit(seconds: float, doing: str) -> Iterator[None]:
    """Ends the process with exit code 1 and a sentence if the block has not ended in time.

    No exception could do that: a thread that is inside an environment's code cannot be reached. To be used before
    there is anything to lose.

    Args:
      seconds: that the block may take.
      doing: what it does, as in "making CartPole-v1".
    """

    def give_up() -> None:
        print(f"ga3c: {doing} has not ended in {seconds:g} s", file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
