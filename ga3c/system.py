"""What a run and a mode know of each other."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ga3c.checkpoint import Progress
from ga3c.config import TrainConfig
from ga3c.envs import EnvSpec
from ga3c.forkserver import ForkServer
from ga3c.metrics import Meters
from ga3c.model import Model
from ga3c.sampler import Sampler
from ga3c.supervisor import Failure

LEAST_LEAVE_S = 0.5  # for workers to end by themselves, however late a thread of the learner was
STOP_TIMEOUT_S = 2.5  # of the 5 s in which a run that is asked to stop ends; checkpoints have the rest


@dataclass(frozen=True)
class Context:
    """What a mode is wired to.

    Attributes:
      config, spec: of the run and its environment.
      model: that is trained.
      meters: count what happens.
      learning_rate: of the next update.
      notify: takes news for the user, a sentence at a time.
      resumed: how far the run had come before; what is played after a resume are other games.
      server, sampler: a forkserver of the mode's role, and mode ga3c's sampler, if they were started while the rest
        was loaded.
    """

    config: TrainConfig
    spec: EnvSpec
    model: Model
    meters: Meters
    learning_rate: Callable[[], float]
    notify: Callable[[str], None]
    resumed: Progress
    server: ForkServer | None = None
    sampler: Sampler | None = None

    @property
    def seed(self) -> int:
        """Of the games and the actions that are drawn from here on."""
        return self.config.seed + self.resumed.env_steps


@dataclass(frozen=True)
class Account:
    """Live steps that were counted and are not trained on: ``env_steps`` are these and the samples of the updates.

    Attributes:
      dropped: by reason.
      in_flight: in rollouts that are not complete, or wait for training.
    """

    dropped: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0


class System(Protocol):
    """One mode, wired: what a run starts, looks after and stops."""

    def start(self) -> None:
        """Starts every thread and process."""

    def tick(self) -> None:
        """Called a few times a second: measures what nobody counts."""

    def stop(self) -> None:
        """Ends every thread and process, within ``STOP_TIMEOUT_S``; kills processes that have not ended by then."""

    def account(self) -> Account:
        """What became of the steps that no update has seen."""

    @property
    def failure(self) -> Failure | None:
        """The first failure of any role."""
