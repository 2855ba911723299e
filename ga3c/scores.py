"""The command ``ga3c eval``: plays whole games with one trained agent or several, and tells their scores.

What is told is kept too, a line an evaluation, in ``evaluations.jsonl`` of the run's folder: ``ga3c report`` reads it.
"""

import contextlib
import dataclasses
import datetime
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ga3c.agents import AgentScores, Score, count, score_agents, seeds_of_games
from ga3c.display import say_error
from ga3c.errors import UsageError
from ga3c.eval_progress import EvalProgress, Standing, ranges
from ga3c.folder import check_checkpoint
from ga3c.options import parse
from ga3c.signals import Signals
from ga3c.statistics import Estimate

if TYPE_CHECKING:
    from ga3c.evaluate import Evaluation
    from ga3c.policy import Policy

KEPT = "evaluations.jsonl"


@dataclass(frozen=True)
class EvalOptions:
    """Plays whole games with a trained agent and prints the scores; of several runs, those over seeds and games too."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run folders, whose newest checkpoints are taken, or checkpoints."""
    episodes: int = 30
    """Games to play, of each run."""
    greedy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the likeliest action; --sample, the default, draws from the policy."""
    sample: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Draw actions from the policy, as in training."""
    seed: int = 1000
    """Seed of games and sampling."""
    max_episode_steps: int | None = None
    """Cut a game after this many agent steps; its return so far counts. Default plays every game to its end."""
    device: str = "auto"
    """auto takes CUDA where there is one; else cpu, cuda, cuda:N."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object."""


def run_eval(arguments: list[str]) -> int:
    """Returns the exit code.

    Raises:
      UsageError: the user asked for what cannot be had.
    """
    options = parse(EvalOptions, arguments, "ga3c eval")
    _check(options)
    from ga3c.policy import load_policy  # here, since it loads torch

    policies = [load_policy(path, device=options.device, seed=options.seed) for path in options.paths]
    signals = Signals()
    with signals.handled():
        results = _evaluate(options, policies, signals)
    if signals.exitcode:
        say_error(f"ga3c eval: stopped; the scores of {len(results)} of {len(policies)} runs are kept")
        return signals.exitcode
    _print(options, policies, results)
    return 0


class _StoppedError(Exception):
    """A signal has come."""


def _evaluate(options: EvalOptions, policies: "list[Policy]", signals: Signals) -> "list[Evaluation]":
    """Plays and keeps the scores of one run after the other, until a signal comes."""
    from ga3c.evaluate import evaluate_policy

    def watch(standing: Standing) -> None:
        progress.show(standing)
        if signals.exitcode:
            raise _StoppedError

    results: list[Evaluation] = []
    with (
        contextlib.suppress(_StoppedError),
        EvalProgress(is_limited=options.max_episode_steps is not None) as progress,
    ):
        for path, policy in zip(options.paths, policies, strict=True):
            progress.begin(str(path), policy.config.env, options.episodes)
            result = evaluate_policy(
                policy,
                episodes=options.episodes,
                greedy=options.greedy,
                seed=options.seed,
                max_episode_steps=options.max_episode_steps,
                watch=watch,
            )
            _keep(policy.path.parent, result, options.seed)
            results.append(result)
    return results


def _print(options: EvalOptions, policies: "list[Policy]", results: "list[Evaluation]") -> None:
    if len(results) == 1:
        print(json.dumps(_plain(results[0])) if options.json else describe(results[0]))
        return
    agents = score_agents([_score(*pair) for pair in zip(policies, results, strict=True)])
    if options.json:
        runs = [_plain(result) for result in results]
        print(json.dumps({"runs": runs, "aggregate": {one.agent: one.to_json() for one in agents}}))
    else:
        print("\n".join([*_table(options.paths, results), "", *(line for one in agents for line in _over(one))]))


def _check(options: EvalOptions) -> None:
    if not options.paths:
        raise UsageError("got no run; run folders or checkpoints would be right")
    # Checkpoints of one run are no seeds of their own.
    whole = [path.resolve().parent if path.is_file() else path.resolve() for path in options.paths]
    for path, place in zip(options.paths, whole, strict=True):
        if whole.count(place) > 1:
            raise UsageError(f"got the run of {path} more than once; each run once would be right")
    if options.greedy and options.sample:
        raise UsageError("got --greedy and --sample; one of them would be right")
    if options.episodes < 1:
        raise UsageError(f"--episodes: got {options.episodes}; at least 1 would be right")
    if options.max_episode_steps is not None and options.max_episode_steps < 1:
        raise UsageError(f"--max-episode-steps: got {options.max_episode_steps}; expected at least 1")
    if options.seed < 0:
        raise UsageError(f"--seed: got {options.seed}; at least 0 would be right")
    for path in options.paths:
        check_checkpoint(path)
    if len(options.paths) > 1 and find_spec("scipy") is None:
        raise UsageError("eval of several runs needs scipy; pip install 'ga3c[report]' would be right")


def _plain(result: "Evaluation") -> dict[str, Any]:
    return dataclasses.asdict(result) | result.summary()


def _keep(folder: Path, result: "Evaluation", seed: int) -> None:
    """Appends to the run's folder, if it is one; where that cannot be, it is said, and all goes on."""
    if not (folder / "config.json").is_file():
        return
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = {"date": date, "seed": seed, **_plain(result), "checkpoint": Path(result.checkpoint).name}
    try:
        with (folder / KEPT).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        say_error(f"ga3c eval: the scores are not kept: {folder / KEPT}: {error.strerror}")


def _score(policy: "Policy", result: "Evaluation") -> Score:
    return Score(policy.config, float(result.summary()["mean"] or 0.0), result.human_normalised)


def describe(result: "Evaluation") -> str:
    """One evaluation, in words."""
    s = result.summary()
    lines = [
        f"{result.checkpoint}, trained for {result.env_steps:,} steps",
        f"protocol: {result.protocol}",
        f"{s['episodes']} games, {'greedy' if result.greedy else 'sampled'}:"
        f" mean {s['mean']:.2f}, standard deviation {s['std']:.2f}, median {s['median']:g},"
        f" minimum {s['min']:g}, maximum {s['max']:g}",
    ]
    lines += _cuts(result)
    if result.human_normalised is not None:
        lines.append(f"human-normalised: {result.human_normalised:.1%} (no-op starts, Wang et al. 2015)")
    return "\n".join(lines)


def _cuts(result: "Evaluation") -> list[str]:
    """The line on games that were cut, if any were."""
    if not result.cut_in:
        return []
    games = "1 game was cut" if len(result.cut_in) == 1 else f"{len(result.cut_in)} games were cut"
    where = f"environment{'s' if len(set(result.cut_in)) > 1 else ''} {ranges(result.cut_in)}"
    return [f"{games} after {result.max_episode_steps:,} steps, in {where}; the return until then counts"]


def _table(paths: tuple[Path, ...], results: "list[Evaluation]") -> list[str]:
    """A line a run."""
    width = max(len(str(path)) for path in paths)
    greedy = "greedy" if results[0].greedy else "sampled"
    lines = [f"{len(results[0].returns)} games of each run, {greedy}"]
    lines += [f"  protocol: {words}" for words in dict.fromkeys(result.protocol for result in results)]
    heads = ("steps", "mean", "std", "median", "minimum", "maximum", "human")
    lines.append(f"{'run':{width}}" + "".join(f"{head:>12}" for head in heads))
    for path, result in zip(paths, results, strict=True):
        s = result.summary()
        human = "-" if result.human_normalised is None else f"{result.human_normalised:.1%}"
        figures = (f"{s['mean']:.2f}", f"{s['std']:.2f}", f"{s['median']:g}", f"{s['min']:g}", f"{s['max']:g}", human)
        lines.append(f"{path!s:{width}}{result.env_steps:12,}" + "".join(f"{figure:>12}" for figure in figures))
        lines += [f"  {words}" for words in _cuts(result)]
    return lines


def _over(agent: AgentScores) -> list[str]:
    """One agent over its seeds, and over its games."""
    lines = [agent.agent]
    for env, estimates in agent.by_game().items():
        lines.append(f"  {env}, {count(len(agent.games[env]), 'seed')}: {_in_words(estimates, '.2f')}")
    over_games = agent.over_games()
    if over_games is not None:
        lines.append(f"  human-normalised, {seeds_of_games(agent.normalised)}: {_in_words(over_games, '.1%')}")
    if any(len(runs) > 1 for runs in agent.games.values()):
        lines.append("  in brackets: 95 % bootstrap intervals over the runs of each game (Agarwal et al. 2021);")
        lines.append("  of two runs that is their range")
    return lines


def _in_words(estimates: dict[str, Estimate], form: str) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {estimate.words(form)}" for name, estimate in estimates.items())
