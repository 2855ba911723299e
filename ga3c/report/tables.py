"""The tables of runs: what each came to, scores over seeds and games, steps, settings, protocol and machine."""

from collections.abc import Callable, Sequence
from typing import Any

from ga3c.agents import Group, Score, count, score_agents, seeds_of_games
from ga3c.bottleneck import find_bottleneck
from ga3c.report.page import Table, Tile
from ga3c.report.runs import Run
from ga3c.statistics import Estimate
from ga3c.windows import pooled

_PATHS = ("out", "resume")
_NONE = "–"  # noqa: RUF001  (a dash: the figure is not known)
Groups = Sequence[Group[Run]]


def tiles(groups: Groups) -> list[Tile]:
    """The best score of each group and what it took; of a single one more."""
    found = [_score_tile(group) for group in groups]
    if len(groups) == 1:
        members = groups[0].members
        human = _over([run.normalised(run.best_score) for run in members])
        lag = _over([_mean(run, "policy_lag_mean") for run in members])
        if human is not None:
            found.append(Tile(f"{human:.0%}", "of human", "the best score, human-normalised; no-op starts"))
        pps = _over([_over_time(run, "env_steps") for run in members])
        found.append(Tile(_whole(pps), "PPS", "predictions a second, over the whole run"))
        found.append(Tile(_NONE if lag is None else f"{lag:.2g}", "versions of policy lag", "mean over the whole run"))
    return found


def _score_tile(group: Group[Run]) -> Tile:
    best = [run.best_score for run in group.members if run.best_score is not None]
    minutes = max((run.rates[-1]["time_s"] / 60 for run in group.members if run.rates), default=0.0)
    frames = max((run.rates[-1]["frames"] for run in group.members if run.rates), default=0)
    what = "best mean of 100 games" + (f", mean of {count(len(best), 'seed')}" if len(best) > 1 else "")
    return Tile(_score(_over(best)), group.name, f"{what}; {minutes:.1f} minutes, {frames:,.0f} frames")


def _over(figures: Sequence[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [figure for figure in figures if figure is not None]
    return sum(known) / len(known) if known else None


def runs(groups: Groups) -> Table:
    """A line a run."""
    head = [
        "run", "environment", "agent", "seed", "minutes", "agent steps", "frames", "games", "score now", "best score",
        "human", "evaluated", "PPS", "samples/s",
    ]  # fmt: skip
    lines = [_run_line(group, run) for group in groups for run in group.members]
    words = (
        "Scores are means of the last 100 whole games, or of as many as there were. Human: the best score,"
        " human-normalised, (score - random) / (human - random) with the references of no-op starts (Wang et al. 2015)."
        " PPS and training samples a second are over the whole run."
    )
    return Table("Runs", words, head, lines, texts=3)


def _run_line(group: Group[Run], run: Run) -> list[str]:
    last: dict[str, Any] = run.rates[-1] if run.rates else {}
    minutes = f"{last['time_s'] / 60:.1f}" if last else _NONE
    played = [_whole(last.get("env_steps")), _whole(last.get("frames")), _whole(run.games)]
    scores = [_score(run.score), _score(run.best_score), _percent(run.normalised(run.best_score))]
    rates = [_whole(_over_time(run, "env_steps")), _whole(_mean(run, "training_samples_per_s"))]
    return [
        run.name, group.env, group.agent, str(run.config.seed), minutes, *played, *scores,
        _score(run.evaluation_score), *rates,
    ]  # fmt: skip


def scores(groups: Groups) -> list[Table]:
    """Over seeds and games: of evaluations, and of the last games of training; none of a single run."""
    members = [run for group in groups for run in group.members]
    if len(members) == 1:
        return []
    played = dict.fromkeys(run.evaluation_kind for run in members if run.evaluation_kind is not None)
    kinds = {
        f"ga3c eval, {kind}": [(run, run.evaluation_score) for run in members if run.evaluation_kind == kind]
        for kind in played
    }
    kinds["training, last 100 games"] = [(run, run.score) for run in members]
    by_game, over_games = [], []
    for kind, scored in kinds.items():
        found = [Score(run.config, score, run.normalised(score)) for run, score in scored if score is not None]
        for agent in score_agents(found):
            for env, estimates in agent.by_game().items():
                seeds = str(len(agent.games[env]))
                by_game.append([agent.agent, env, kind, seeds, *_estimates(estimates, ".4g")])
            known = agent.over_games()
            if known is not None:
                over_games.append([agent.agent, seeds_of_games(agent.normalised), kind, *_estimates(known, ".1%")])
    middle = ["interquartile mean", "median", "mean"]
    words = (
        "In brackets the 95 % bootstrap interval: runs are drawn again within each game (Agarwal et al. 2021). Where"
        " a game has a single run there is none."
    )
    made = [
        Table("Scores over seeds", words, ["agent", "environment", "of", "seeds", *middle], by_game, texts=3),
        Table("Human-normalised, over seeds and games", words, ["agent", "over", "of", *middle], over_games, texts=3),
    ]
    return [table for table in made if table.lines]


def _estimates(estimates: dict[str, Estimate], form: str) -> list[str]:
    return [estimates[name].words(form) for name in ("interquartile_mean", "median", "mean")]


def bottlenecks(groups: Groups) -> list[str]:
    """What held each run back, over all its time, in words."""
    found = []
    for group in groups:
        for run in group.members:
            on_cpu = run.facts.get("device") == "cpu"
            bottleneck = find_bottleneck(pooled(run.rates), on_cpu=on_cpu)
            if bottleneck is not None:
                found.append(f"{run.name} was {bottleneck}.")
    return found


def steps(groups: Groups) -> list[Table]:
    """What became of every step, a line for each time that a run was started and ended."""
    lines = []
    for run in (run for group in groups for run in group.members):
        for total in run.totals:
            trained, in_flight = total.get("samples_trained", 0), total.get("samples_in_flight", 0)
            dropped = sum(total.get("samples_dropped", {}).values())
            taken = total.get("env_steps", 0) - total.get("resumed_steps", 0)
            adds_up = "yes" if taken == trained + dropped + in_flight else "no"
            lines.append([run.name, *(_whole(n) for n in (taken, trained, dropped, in_flight)), adds_up])
    head = ["run", "agent steps taken", "trained on", "dropped", "in flight at the end", "adds up"]
    words = "No step is lost or trained on twice. A run that was started again has a line for each time."
    return [Table("Every step accounted for", words, head, lines)] if lines else []


def settings(groups: Groups) -> list[Table]:
    """Settings that differ between runs, then all."""
    members = [run for group in groups for run in group.members]
    values = [run.config.to_json() for run in members]
    names = [name for name in values[0] if name not in _PATHS]
    differing = [name for name in names if len({str(one[name]) for one in values}) > 1]
    head = ["setting", *(run.name for run in members)]

    def lines(chosen: Sequence[str]) -> list[list[str]]:
        return [[name.replace("_", " "), *(_value(one[name]) for one in values)] for name in chosen]

    made = [
        Table("Settings that differ", "", head, lines(differing)),
        Table("All settings", "Resolved: as the run had them.", head, lines(names), is_folded=True),
    ]
    return [table for table in made if table.lines]


def circumstances(groups: Groups) -> Table:
    """Protocol, network, machine and versions, a line each; what several runs share is written once."""
    members = [run for group in groups for run in group.members]
    facts: dict[str, Callable[[dict[str, Any]], Any]] = {
        "device": lambda f: f.get("device"),
        "protocol": lambda f: f.get("protocol"),
        "parameters": lambda f: f"{f['parameters']:,}" if isinstance(f.get("parameters"), int) else None,
        "MFLOP a state": lambda f: f.get("mflop_per_state"),
        "precision": lambda f: f.get("precision"),
        "machine": lambda f: _machine(f.get("machine")),
        "versions": lambda f: ", ".join(f"{name} {v}" for name, v in f.get("versions", {}).items() if v),
    }
    lines = []
    for words, read in facts.items():
        by_value: dict[str, list[str]] = {}
        for run in members:
            value = read(run.facts)
            if value not in (None, ""):
                by_value.setdefault(str(value), []).append(run.name)
        for value, names in by_value.items():
            lines.append([words, value, "all runs" if len(names) == len(members) > 1 else ", ".join(names)])
    return Table("Protocol, machine and versions", "", ["", "", "of"], lines, texts=3)


def _machine(machine: Any) -> str | None:
    if not isinstance(machine, dict):
        return None
    cores = machine.get("cores", "?")
    return f"{cores} cores of {machine.get('cpu', '?')}, {machine.get('gpu') or 'no GPU'}, {machine.get('system', '')}"


def _over_time(run: Run, name: str) -> float | None:
    """A count of the whole run, a second."""
    return run.rates[-1][name] / run.rates[-1]["time_s"] if run.rates and run.rates[-1]["time_s"] else None


def _mean(run: Run, name: str) -> float | None:
    """A rate over the whole run: its windows' mean, each as long as it was."""
    total, seconds, before = 0.0, 0.0, 0.0
    for line in run.rates:
        if name in line:
            total += line[name] * (line["time_s"] - before)
            seconds += line["time_s"] - before
        before = line["time_s"]
    return total / seconds if seconds else None


def _whole(figure: float | None) -> str:
    return _NONE if figure is None else f"{figure:,.0f}"


def _score(score: float | None) -> str:
    return _NONE if score is None else f"{score:,.4g}" if abs(score) < 10_000 else f"{score:,.0f}"


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{share:.0%}"


def _value(value: Any) -> str:
    return _NONE if value is None else f"{value:g}" if isinstance(value, float) else str(value)
