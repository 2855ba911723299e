"""``--dynamic``: counts of actors, predictors and trainers that change while a run trains, by what it measures.

A walk is a generator: it yields the counts to train with and for how long, and is sent what that gave. ``paper`` is
that of the released code; ``climb`` changes one count at a time, keeps what is surely better, and settles.
"""

import math
import random
import statistics
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from ga3c.choices import Dynamic

_SETTLE_S = 1.0  # after a change, which does not count
_PAPER_FIRST_S, _PAPER_WINDOW_S = 10.0, 20.0
_LOOK_S = 2.0  # a measurement of the climb
_LOOKS = 5  # before and after a change, each
_SURE = 3.0  # standard errors of a difference that is taken for one
_WORTH = 0.04  # a gain below that is not worth a change
_REST_S = 300.0  # of a climb that has found its place
_DRIFT = 0.2  # by which the rate must change for it to look around again before


class Counts(NamedTuple):
    """How many of each role."""

    actors: int
    predictors: int
    trainers: int


class Stay(NamedTuple):
    """Train with ``counts`` for ``seconds``."""

    counts: Counts
    seconds: float


Walk = Generator[Stay, float, None]  # is sent the rate that the last stay gave: training samples or updates a second


def paper_walk(start: Counts, most: Counts, draw: random.Random) -> Walk:
    """NVlabs/GA3C's: each count moves by -1, 0 or 1 at random; what was slower than the window before is taken back.

    The window before may be one that was taken back itself: that is the released code.
    """
    counts = start
    before = yield Stay(counts, _PAPER_FIRST_S)
    while True:
        moved = (max(1, min(n + draw.choice((-1, 0, 1)), limit)) for n, limit in zip(counts, most, strict=True))
        tried = Counts(*moved)
        if tried == counts and max(most) > 1:
            continue  # it draws anew at once
        rate = yield Stay(tried, _PAPER_WINDOW_S)
        if rate >= before:
            counts = tried
        before = rate


def climb(start: Counts, most: Counts) -> Walk:
    """One count at a time, first the one whose last change helped; what is not surely better is taken back.

    Each change is judged beside what was measured just before it. When no change helps, it rests, and looks around
    again after a while, or when the rate has changed by itself.
    """
    counts = start
    order = [("actors", 2), ("trainers", 2), ("predictors", 2), ("actors", 1), ("trainers", 1), ("predictors", 1)]
    while True:
        before = yield from _looks(counts)
        for move in list(order):
            tried = _moved(counts, most, *move)
            if tried == counts:
                continue
            after = yield from _looks(tried)
            if _is_better(after, before):
                counts = tried
                order.remove(move)
                order.insert(0, move)  # where it helped once it may help again
                break
            before = yield from _looks(counts)
        else:
            yield from _rest(counts, statistics.fmean(before))


def _looks(counts: Counts) -> Generator[Stay, float, list[float]]:
    rates = []
    for _ in range(_LOOKS):
        rates.append((yield Stay(counts, _LOOK_S)))
    return rates


def _rest(counts: Counts, rate: float) -> Generator[Stay, float, None]:
    rested = 0.0
    while rested < _REST_S:
        recent = yield from _looks(counts)
        rested += _LOOKS * _LOOK_S
        if abs(statistics.fmean(recent) - rate) > _DRIFT * rate:
            return


def _moved(counts: Counts, most: Counts, role: str, direction: int) -> Counts:
    """``direction`` 2 is up, by a quarter of what there is and one at least; 1 is down alike."""
    now = getattr(counts, role)
    step = max(1, now // 4)
    wanted = now + step if direction == 2 else now - step
    return counts._replace(**{role: max(1, min(wanted, getattr(most, role)))})


def _is_better(after: Sequence[float], before: Sequence[float]) -> bool:
    a, b = statistics.fmean(after), statistics.fmean(before)
    error = math.hypot(*(statistics.stdev(rates) / math.sqrt(len(rates)) for rates in (after, before)))
    return a - b > max(_SURE * error, _WORTH * b)


def walk_of(dynamic: Dynamic, start: Counts, most: Counts, seed: int) -> Walk:
    """The walk that ``--dynamic`` names; ``seed`` is of one that draws."""
    return paper_walk(start, most, random.Random(seed)) if dynamic == "paper" else climb(start, most)


class Adjuster:
    """Follows a walk, on the clock of whoever calls ``tick``: one that stands still while the run does."""

    def __init__(self, walk: Walk, apply: Callable[[Counts], None], samples: Callable[[], int]) -> None:
        """``apply`` is called for each change of counts; ``samples`` is how many were trained on so far."""
        self._walk = walk
        self._apply = apply
        self._samples = samples
        self._stay = next(walk)
        self._settling_until: float | None = None  # None before the first update
        self._began: float | None = None  # when what counts of this stay began, and how many samples there were
        self._first = 0

    def tick(self, now: float) -> None:
        """Called a few times a second; ``now`` is in seconds."""
        samples = self._samples()
        if self._settling_until is None:
            if samples:  # what comes before the first update is no rate
                self._settling_until = now + _SETTLE_S
        elif self._began is None:
            if now >= self._settling_until:
                self._began, self._first = now, samples
        elif now - self._began >= self._stay.seconds:
            before = self._stay.counts
            self._stay = self._walk.send((samples - self._first) / (now - self._began))
            self._began, self._first = now, samples
            if self._stay.counts != before:
                self._apply(self._stay.counts)
                self._began, self._settling_until = None, now + _SETTLE_S
