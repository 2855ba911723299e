"""Which runs belong together: seeds of the same settings, and the games of one agent. Pure."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from ga3c.config import TrainConfig
from ga3c.curves import is_simulated
from ga3c.statistics import Estimate, aggregate, over_seeds

T = TypeVar("T")

# Settings that do not tell what was trained.
_NOT_OF_AN_AGENT = (
    "env",
    "seed",
    "out",
    "resume",
    "checkpoint_every",
    "keep",
    "record_every",
    "actor_timeout",
    "on_env_error",
)


@dataclass(frozen=True)
class Group(Generic[T]):
    """Runs that differ in nothing but their seeds.

    Attributes:
      env: that they were trained on.
      agent: mode, network and preset in words; what else tells it from another of the same words.
      members: the runs.
    """

    env: str
    agent: str
    members: tuple[T, ...]

    @property
    def name(self) -> str:
        """Environment and agent; no other group of the same call has it."""
        return f"{self.env}, {self.agent}"


def group_runs(runs: Sequence[T], config_of: Callable[[T], TrainConfig]) -> list[Group[T]]:
    """Groups in the order of their first runs."""
    found: dict[tuple[str, str], list[T]] = {}
    for run in runs:
        config = config_of(run)
        found.setdefault((config.env, repr(_settings(config))), []).append(run)
    configs = [config_of(members[0]) for members in found.values()]
    groups = zip(configs, found.values(), strict=True)
    return [
        Group(config.env, _agent(config, [one for one in configs if one.env == config.env]), tuple(members))
        for config, members in groups
    ]


def _settings(config: TrainConfig) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in _NOT_OF_AN_AGENT}


def _agent(config: TrainConfig, others: Sequence[TrainConfig]) -> str:
    """The words for one of several settings."""
    alike = [_settings(other) for other in others if _words(other) == _words(config)]
    own = _settings(config)
    differing = [name for name in own if any(other[name] != own[name] for other in alike)]
    return ", ".join([_words(config), *(f"{name.replace('_', ' ')} {own[name]}" for name in differing)])


def _words(config: TrainConfig) -> str:
    simulated = ", simulated device" if is_simulated(config.device) else ""
    return f"{config.mode.upper()} {config.network}, {config.preset}{simulated}"


class Score(NamedTuple):
    """What one run came to: a mean return of whole games, and the same human-normalised where that is known."""

    config: TrainConfig
    score: float
    normalised: float | None


@dataclass(frozen=True)
class AgentScores:
    """One agent over seeds and games.

    Attributes:
      agent: see ``Group``.
      games: each run's score, by environment.
      normalised: each run's human-normalised score, by environment; those without references are left out.
    """

    agent: str
    games: dict[str, tuple[float, ...]]
    normalised: dict[str, tuple[float, ...]]

    def by_game(self) -> dict[str, dict[str, Estimate]]:
        """Interquartile mean, median and mean over the runs of each environment."""
        return {env: over_seeds(scores) for env, scores in self.games.items()}

    def over_games(self) -> dict[str, Estimate] | None:
        """Interquartile mean, median and mean of the human-normalised scores; None where there are none."""
        return aggregate(self.normalised) if self.normalised else None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        games = {env: {"runs": len(self.games[env]), **_plain(found)} for env, found in self.by_game().items()}
        over_games = self.over_games()
        known = None if over_games is None else {"games": len(self.normalised), **_plain(over_games)}
        return {"games": games, "human_normalised": known}


def _plain(estimates: dict[str, Estimate]) -> dict[str, Any]:
    return {name: estimate._asdict() for name, estimate in estimates.items()}


def score_agents(scores: Sequence[Score]) -> list[AgentScores]:
    """Scores by agent, in the order of the first runs: whoever has other settings in another game is another agent."""
    agents: dict[str, list[Score]] = {}
    for score in scores:
        agents.setdefault(repr(_settings(score.config)), []).append(score)
    configs = [own[0].config for own in agents.values()]
    found = []
    for config, own in zip(configs, agents.values(), strict=True):
        games: dict[str, list[Score]] = {}
        for score in own:
            games.setdefault(score.config.env, []).append(score)
        known = {env: tuple(r.normalised for r in runs if r.normalised is not None) for env, runs in games.items()}
        found.append(
            AgentScores(
                _agent(config, configs),
                {env: tuple(run.score for run in runs) for env, runs in games.items()},
                {env: runs for env, runs in known.items() if runs},
            )
        )
    return found


def count(number: int, thing: str) -> str:
    """As ``3 seeds``."""
    return f"{number} {thing}{'s' if number != 1 else ''}"


def seeds_of_games(scores: dict[str, tuple[float, ...]]) -> str:
    """As ``3 seeds of 1 game``."""
    numbers = sorted({len(runs) for runs in scores.values()})
    seeds = count(numbers[0], "seed") if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]} seeds"
    return f"{seeds} of {count(len(scores), 'game')}"
