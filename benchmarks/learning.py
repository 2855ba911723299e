"""How fast does it learn? Draws the curves of finished runs and keeps a thinned record of them.

    python benchmarks/learning.py RUN_FOLDER... --out benchmarks/results/NAME

writes NAME.jsonl (each run's settings, every n-th line of its metrics, its evaluation if there is one) and NAME.png.
An evaluation is what ``ga3c eval RUN --json > RUN/eval.json`` left.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import tyro
from record import facts

KEPT_LINES = 250
KEPT_FIELDS = (
    "time_s", "env_steps", "updates", "pps", "training_samples_per_s", "policy_lag_mean", "entropy",
    "value_loss", "learning_rate", "episode_return_mean",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Draws the learning curves of finished runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    out: Path
    """Record and picture, without the ending."""
    goal: float | None = None
    """A line to draw."""


def read_run(folder: Path) -> dict[str, Any]:
    """The settings, the thinned curve and the evaluation of one run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [line for line in lines if line["kind"] == "rates"]
    step = max(1, len(rates) // KEPT_LINES)
    kept = rates[::step] if rates[-1] in rates[::step] else [*rates[::step], rates[-1]]
    evaluation = folder / "eval.json"
    return {
        "run": json.loads((folder / "run.json").read_text(encoding="utf-8")),
        "evaluation": json.loads(evaluation.read_text(encoding="utf-8")) if evaluation.exists() else None,
        "curve": [{name: line[name] for name in KEPT_FIELDS} for line in kept],
    }


def draw(runs: list[dict[str, Any]], out: Path, goal: float | None) -> None:
    """Mean return of the last 100 games against minutes and against agent steps."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
    for run in runs:
        points = [line for line in run["curve"] if line["episode_return_mean"] is not None]
        returns = [line["episode_return_mean"] for line in points]
        label = f"seed {run['run']['config']['seed']}"
        axes[0].plot([line["time_s"] / 60 for line in points], returns, label=label)
        axes[1].plot([line["env_steps"] / 1e6 for line in points], returns, label=label)
    for axis, name in zip(axes, ("minutes", "agent steps, millions"), strict=True):
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
        if goal is not None:
            axis.axhline(goal, color="0.5", linestyle=":", linewidth=1)
    axes[0].set_ylabel("return, mean of the last 100 games")
    axes[1].legend()
    first = runs[0]["run"]
    figure.suptitle(f"{first['config']['env']}, mode {first['config']['mode']}, preset {first['config']['preset']}:"
                    f" {first['machine']['cores']} cores of {first['machine']['cpu']}", fontsize=10)  # fmt: skip
    figure.savefig(out.with_suffix(".png"), dpi=110)


def main() -> None:
    """Reads, keeps and draws."""
    options = tyro.cli(Options)
    try:
        runs = [read_run(folder) for folder in options.runs]
    except (OSError, ValueError, IndexError) as error:
        print(
            f"learning.py: a run cannot be read: {error}; the folder of a finished run would be right", file=sys.stderr
        )
        sys.exit(2)
    drawn = {"drawn": facts()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.with_suffix(".jsonl").open("w", encoding="utf-8") as file:
        for run in runs:
            file.write(json.dumps(drawn | run) + "\n")
    draw(runs, options.out, options.goal)


if __name__ == "__main__":
    main()
