"""Starts a training run: what takes long to come up first, and without torch, then the rest beside it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ga3c.config import TrainConfig
from ga3c.display import say_error
from ga3c.envs import EnvSpec
from ga3c.events import Events, Run
from ga3c.forkserver import ForkServer
from ga3c.presets import most_counts
from ga3c.rlimits import provide_descriptors
from ga3c.sampler import Sampler
from ga3c.scheduling import uninterrupted
from ga3c.surroundings import Surroundings
from ga3c.user_code import refuse_nested_run

_ROLES = {"ga3c": "actor", "a3c": "worker"}  # what each mode has as processes


@contextmanager
def launching(
    mode: str, events: Events | None = None, *, quiet: bool = False
) -> Iterator[Callable[[TrainConfig, EnvSpec], Run]]:
    """Starts the mode's forkserver, which imports beside this process, and gives what to call when all is known.

    That takes the validated options and the specification of their environment, and trains until the budget is used
    up, a signal comes, or a callback of ``events`` says so. Whatever was started is gone when the context is left.

    Raises:
      NestedRunError: this process belongs to a worker, or this thread is importing a user's module.
      UsageError: the working directory has been deleted.

    Raises (the function that it gives):
      UsageError: before anything was written; or later, if the mistake only shows in a worker.
      WorkerError: a role failed; a checkpoint of what was learnt before is left.
    """
    refuse_nested_run()
    surroundings = Surroundings.now()
    with ExitStack() as undo:
        undo.enter_context(uninterrupted())
        server = None
        if mode in _ROLES:
            server = ForkServer(_ROLES[mode])
            undo.callback(server.close, timeout_s=0.0)

        def launch(config: TrainConfig, spec: EnvSpec) -> Run:
            provide_descriptors(most_counts(config)[0])
            sampler = None
            # A resumed run plays games that depend on how far it had come, which its checkpoint says.
            if mode == "ga3c" and server is not None and config.resume is None:
                sampler = Sampler(config, spec, config.seed, say_error, server)
                undo.callback(sampler.abandon)
                sampler.start()
            from ga3c.run import train

            return train(config, spec, server, sampler, events, quiet=quiet, surroundings=surroundings)

        yield launch
