"""Which cells a comparison has, in which order, and which counts are tried for each mode. Pure decisions."""

import random
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from ga3c.compare.cells import Cell, Row, cell_of
from ga3c.compare.figures import rate

MODES = ("a3c", "a2c", "ga3c")


class Variant(NamedTuple):
    """A mode on a device."""

    mode: str
    device: str


Settings = dict[str, int]
Tuned = dict[tuple[Variant, str], Settings]  # (variant, network): the counts to measure it with


def variants(modes: Sequence[str], device: str) -> list[Variant]:
    """Each mode on ``device``; A3C, whose paper knows no GPU, on the CPU as well."""
    found = []
    for mode in modes:
        if mode == "a3c" and device != "cpu":
            found.append(Variant(mode, "cpu"))
        found.append(Variant(mode, device))
    return found


def mode_cells(
    found: Sequence[Variant], networks: Sequence[str], repeat: int, seed: int, minutes: float, tuned: Tuned
) -> list[Cell]:
    """One repeat: every variant with every network, the variants by turns, in an order drawn for this repeat.

    Variants that are compared run next to each other, so that a machine that gets slower within the hour slows both.
    """
    draw = random.Random(f"{seed} {repeat}")
    turns, order = draw.sample(list(found), len(found)), draw.sample(list(networks), len(networks))
    return [
        Cell("mode", v.mode, v.device, network, repeat, minutes, tuned.get((v, network), {}))
        for network, v in product(order, turns)
    ]


def grid_cells(
    networks: Sequence[str], device: str, repeat: int, seed: int, minutes: float, axes: dict[str, list[int]]
) -> list[Cell]:
    """One repeat of the grid of mode ``ga3c``: every combination of ``axes``, in an order drawn for this repeat."""
    cells = [
        Cell("grid", "ga3c", device, network, repeat, minutes, dict(zip(axes, counts, strict=True)))
        for network in networks
        for counts in product(*axes.values())
    ]
    return random.Random(f"grid {seed} {repeat}").sample(cells, len(cells))


def tuning_stages(mode: str, cores: int, fixed: Sequence[str]) -> list[dict[str, list[int]]]:
    """What ``--tune`` tries, one stage after the other; a stage starts from the best of those before it.

    Args:
      mode: whose counts.
      cores: that the processes may use.
      fixed: options that the user has chosen; they are not tried.

    Returns:
      For each stage, values by option; every combination is a trial.
    """
    actors = [cores, 2 * cores, 4 * cores]
    stages: dict[str, list[dict[str, list[int]]]] = {
        "a3c": [{"actors": actors}],
        "a2c": [{"envs_per_actor": [8, 16, 32, 64, 128]}],
        "ga3c": [
            {"actors": actors, "envs_per_actor": [8, 16, 32]},
            {"min_training_batch": [80, 160, 320, 640]},
        ],
    }
    free = [{name: values for name, values in stage.items() if name not in fixed} for stage in stages[mode]]
    return [stage for stage in free if stage]


def trials(variant: Variant, network: str, minutes: float, stage: dict[str, list[int]], best: Settings) -> list[Cell]:
    """The trials of one stage, around the ``best`` counts of the stages before it."""
    return [
        Cell("trial", variant.mode, variant.device, network, 0, minutes, best | dict(zip(stage, counts, strict=True)))
        for counts in product(*stage.values())
    ]


def best_settings(rows: Sequence[Row], otherwise: Settings) -> Settings:
    """The counts of the trial that trained on most samples a second; ``otherwise`` if all have failed."""
    figures = [(rate(row, "training_samples_per_s"), row) for row in rows if row["error"] is None]
    measured = [(figure, row) for figure, row in figures if figure is not None]
    return cell_of(max(measured, key=lambda pair: pair[0])[1]).settings if measured else otherwise
