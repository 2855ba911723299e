"""What a run's folder tells. What is damaged is left out and said; a run may be going on meanwhile."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ga3c.config import TrainConfig, config_from_json
from ga3c.curves import is_simulated
from ga3c.envs import atari_game
from ga3c.errors import UsageError
from ga3c.statistics import human_normalised

Line = dict[str, Any]

_CLIPS = ("*.mp4", "*.gif")
_LARGEST = 1e300  # what is larger is no figure of a run
_GAMES = 100  # in the mean that is a score, once there were so many


@dataclass(frozen=True)
class Run:
    """One run's folder, read.

    Attributes:
      name: the folder's, or more of its path where several have that name.
      config: its settings; ``device`` is the one that it found.
      facts: ``run.json``, but for its settings; empty where it cannot be read.
      rates: its windows, in order; what a resume has taken back is left out.
      totals: what became of its steps, a line for each time it was started and ended.
      games: whole ones that ended.
      scored_from_s: when so many had ended that their mean is a score: 100.
      evaluations: of ``ga3c eval``, the newest last.
      clips: pictures of games, the newest last.
      notes: what is missing, damaged, or going on; a sentence each.
    """

    name: str
    config: TrainConfig
    facts: dict[str, Any]
    rates: list[Line]
    totals: list[Line]
    games: int
    scored_from_s: float
    evaluations: list[Line]
    clips: list[Path]
    notes: list[str]

    @property
    def is_simulated(self) -> bool:
        """Whether its device only waited: nothing was learnt."""
        return is_simulated(self.config.device)

    @property
    def score(self) -> float | None:
        """Mean return of the last 100 games, at the end."""
        return next((r["episode_return_mean"] for r in reversed(self.rates) if "episode_return_mean" in r), None)

    @property
    def best_score(self) -> float | None:
        """The best mean return of 100 games; that of all games where there were fewer."""
        means = [(r["time_s"], r["episode_return_mean"]) for r in self.rates if "episode_return_mean" in r]
        return max((mean for at, mean in means if at >= self.scored_from_s), default=self.score)

    @property
    def evaluation_score(self) -> float | None:
        """Mean return of the newest evaluation."""
        return self.evaluations[-1]["mean"] if self.evaluations else None

    @property
    def evaluation_kind(self) -> str | None:
        """How the newest evaluation was played: those of different kinds do not compare."""
        if not self.evaluations:
            return None
        newest = self.evaluations[-1]
        limit = newest.get("max_episode_steps")
        cut = f", cut after {limit} steps" if _is_number(limit) else ""
        return f"{len(newest['returns'])} games, {'greedy' if newest.get('greedy') else 'sampled'}{cut}"

    def normalised(self, score: float | None) -> float | None:
        """Of a mean return; None where the references are not known."""
        if score is None or self.facts.get("protocol", "none") == "none":  # no Atari game
            return None
        return human_normalised(str(self.facts.get("game", atari_game(self.config.env))), score)

    def curve(self, x: str, y: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Two figures of the windows that have both; [N] float64 each."""
        points = [(line[x], line[y]) for line in self.rates if x in line and y in line]
        first, second = np.asarray(points, np.float64).reshape(-1, 2).T
        return first, second


def is_run(folder: Path) -> bool:
    """Whether it looks like a run's folder."""
    return (folder / "config.json").is_file()


def read_run(folder: Path, name: str) -> Run:
    """Reads a run's folder.

    Raises:
      UsageError: its settings cannot be read.
    """
    path = folder / "config.json"
    try:
        config = config_from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}; the folder of a run would be right") from None
    notes: list[str] = []
    facts = _facts(folder / "run.json", notes)
    metrics = _read_metrics(folder / "metrics.jsonl", notes)
    if metrics.is_open:
        notes.append("it goes on, or was killed: there are no totals at its end")
    if not metrics.rates:
        notes.append("no window of it was measured yet")
    elif not metrics.games:
        notes.append("no game of it has ended yet, so there is no score")
    device = str(facts.get("device", config.device))
    if is_simulated(device):
        notes.append("its device is simulated and only waits: actions are random, nothing is learnt")
    return Run(
        name=name,
        config=replace(config, device=device),
        facts=facts,
        rates=metrics.rates,
        totals=metrics.totals,
        games=len(metrics.games),
        scored_from_s=metrics.games[_GAMES - 1] if len(metrics.games) >= _GAMES else math.inf,
        evaluations=[line for line in _lines(folder / "evaluations.jsonl", notes) if _is_evaluation(line)],
        clips=sorted((c for kind in _CLIPS for c in (folder / "clips").glob(kind)), key=lambda c: c.stat().st_mtime),
        notes=notes,
    )


def _facts(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        facts.pop("config", None)
        facts["machine"], facts["versions"] = dict(facts["machine"]), dict(facts["versions"])
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        notes.append(
            f"run.json cannot be read ({type(error).__name__}), so protocol, machine and versions are not known"
        )
        return {}
    found: dict[str, Any] = facts
    return found


@dataclass
class _Metrics:
    rates: list[Line] = field(default_factory=list)
    totals: list[Line] = field(default_factory=list)
    games: list[float] = field(default_factory=list)  # when each ended, in seconds of training
    is_open: bool = False  # its last line is not the totals


def _read_metrics(path: Path, notes: list[str]) -> _Metrics:
    found = _Metrics()
    for line in _lines(path, notes):
        found.is_open = line.get("kind") != "totals"
        if line.get("kind") == "episode":
            ended = _numbers(line).get("time_s", found.games[-1] if found.games else 0.0)
            while found.games and found.games[-1] > ended:
                found.games.pop()  # a resume began before it
            found.games.append(ended)
        elif line.get("kind") == "totals":
            found.totals.append(_numbers(line))
        elif line.get("kind") == "rates":
            rates = _numbers(line)
            if not {"time_s", "env_steps", "frames"} <= rates.keys():
                continue
            while found.rates and _is_after_resume(found.rates[-1], rates):
                found.rates.pop()
            found.rates.append(rates)
    return found


def _is_after_resume(line: Line, next_line: Line) -> bool:
    """Whether a run was killed after ``line``, and resumed from a checkpoint before it: time or steps go back."""
    return bool(line["time_s"] >= next_line["time_s"] or line["env_steps"] > next_line["env_steps"])


def _lines(path: Path, notes: list[str]) -> Iterator[Line]:
    """The JSON objects of a file, a line each; of those that are none, their number is noted."""
    damaged = 0
    try:
        with path.open("rb") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):
                    line = None
                if isinstance(line, dict):
                    yield line
                elif text.strip():
                    damaged += 1
    except FileNotFoundError:
        if path.name == "metrics.jsonl":
            notes.append("it has no metrics.jsonl")
    except OSError as error:
        notes.append(f"{path.name} cannot be read: {error.strerror}")
    if damaged:
        lines = "1 line" if damaged == 1 else f"{damaged} lines"
        notes.append(f"{lines} of {path.name} cannot be read, and are left out")


def _numbers(line: Line) -> Line:
    """The figures of a line, and its tables of figures; what is no such thing is left out."""
    kept: Line = {}
    for name, value in line.items():
        if name == "role_seconds":
            kept[name] = {role: _table(spent) for role, spent in value.items()} if isinstance(value, dict) else {}
        elif name == "samples_dropped":
            kept[name] = _table(value)
        elif name.endswith("_histogram"):
            kept[name] = {key: count for key, count in _table(value).items() if key.isdecimal()}
        elif _is_number(value):
            kept[name] = value
    return kept


def _table(value: Any) -> dict[str, float]:
    return {name: figure for name, figure in value.items() if _is_number(figure)} if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST  # and no NaN


def _is_evaluation(line: Line) -> bool:
    returns = line.get("returns")
    return isinstance(returns, list) and bool(returns) and _is_number(line.get("mean"))
