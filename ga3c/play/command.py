"""The command ``ga3c play``: its options, and a game from the checkpoint to the film or the screen."""

import itertools
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ga3c.envs import EnvError, action_names, env_seeds, make_filmed
from ga3c.errors import UsageError
from ga3c.film import check_extra, check_film, filming
from ga3c.folder import check_checkpoint
from ga3c.options import parse
from ga3c.signals import Signals
from ga3c.surroundings import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from ga3c.play.game import Moment

    Show = Callable[[Moment, Image], bool]

_BOUNDS = {"episodes": (1, 10**6), "seconds": (0.01, 10**6), "seed": (0, 2**31 - 1), "fps": (1, 100), "scale": (1, 16)}
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")  # of the environment; where one is set, windows can be expected to open


@dataclass(frozen=True)
class PlayOptions:
    """Films a trained agent at play, or shows it live. Ctrl-C ends the game; what was filmed is kept."""

    path: Annotated[Path, tyro.conf.Positional]
    """Run folder, whose newest checkpoint is taken, or a checkpoint."""
    out: Path | None = None
    """The film, .mp4 or .gif; default play-<steps>.mp4 beside the checkpoint."""
    episodes: int = 1
    """Games to play."""
    seconds: float | None = None
    """Cut the film after this many seconds; default is whole games."""
    greedy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the likeliest action; the default draws from the policy, as in training."""
    seed: int = 1000
    """Seed of games and sampling."""
    device: str = "auto"
    """auto takes CUDA where there is one; else cpu, cuda, cuda:N."""
    fps: float | None = None
    """Steps a second; default is real speed: Atari 60 divided by the frame skip, else what Gymnasium says, or 30."""
    scale: int | None = None
    """Whole number of pixels for one of the game's; default makes it about 420 high."""
    explain: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Draw score, value estimate and action probabilities beside the frame."""
    live: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show it in a window where there is a display, else in the terminal; a film is written only with --out."""


def run_play(arguments: list[str]) -> int:
    """Returns the exit code.

    Raises:
      UsageError: the user asked for what cannot be had.
      EnvError: the environment failed in a game.
    """
    options = parse(PlayOptions, arguments, "ga3c play")
    _check(options)
    return play(options)


def play(options: PlayOptions) -> int:
    """Plays until the games or the seconds are over, or a signal comes; prints the scores and where the film is.

    Returns the exit code.

    Raises:
      UsageError: there is no such checkpoint, it cannot be used, or the film cannot be written.
      EnvError: the environment failed in a game.
    """
    # These load torch and what draws, which the answer to a slip of the finger does not wait for.
    from ga3c.play.game import Games
    from ga3c.play.picture import Painter, default_scale
    from ga3c.policy import load_policy

    out = options.out and options.out.absolute()  # before code of the user's is run
    policy = load_policy(options.path, device=options.device, seed=options.seed)
    config = replace(policy.config.env_config(), reward_clip=False, episodic_life=False)
    names = action_names(policy.spec)
    with ExitStack() as stack:
        try:
            env = make_filmed(config, env_seeds(options.seed, 0, 0, 1)[0])
            stack.callback(env.close)
            games = Games(policy, env, greedy=options.greedy)
            moments = games.moments(options.episodes)
            first = next(moments)
        except EnvError as error:
            raise UsageError(f"{policy.config.env} cannot be filmed: {error}") from None
        fps = options.fps or env.fps
        steps = None if options.seconds is None else max(1, round(options.seconds * fps))
        signals = Signals()
        stack.enter_context(signals.handled())  # before there is a first moment, there is nothing to keep
        film, add, show, is_seen = None, None, None, True
        if out is not None or not options.live:
            film = out or _unused(policy.path.parent / f"play-{policy.env_steps}.mp4")
            check_film(film, fps)
            add = stack.enter_context(filming(film, fps))
        painter = Painter(names, scale=options.scale or default_scale(len(first.frame)), explain=options.explain)
        if options.live:
            show = _open_screen(stack, f"{policy.config.env}: {shown(policy.path)}", painter.size(first), names)
        began = time.monotonic()
        for count, moment in enumerate(itertools.islice(itertools.chain([first], moments), steps), 1):
            picture = painter.paint(moment)
            if add is not None:
                add(picture)
            if show is not None:
                is_seen = show(moment, picture)
                signals.wait(max(0.0, began + count / fps - time.monotonic()))
            if signals.exitcode or not is_seen:
                break
    print(f"{shown(policy.path)}, trained for {policy.env_steps:,} steps; {'greedy' if options.greedy else 'sampled'}")
    print(_scores(games.scores, moment.score if len(games.scores) < options.episodes else None))
    if film is not None:
        print(f"{shown(film)}: {count:,} frames, {count / fps:.1f} s at {fps:g} frames/s")
    return signals.exitcode


def _scores(scores: list[float], unfinished: float | None) -> str:
    said = [f"{score:g}" for score in scores]
    if unfinished is not None:
        said.append(f"{unfinished:g} in a game that was not played to its end")
    return f"score{'s' if len(said) > 1 else ''}: {', '.join(said)}"


def _unused(path: Path) -> Path:
    """The name, or the first like it under which there is nothing yet."""
    names = itertools.chain([path], (path.with_stem(f"{path.stem}-{n}") for n in itertools.count(2)))
    return next(name for name in names if not name.exists())


def _has_display() -> bool:
    return any(os.environ.get(name) for name in _DISPLAYS)


def _open_screen(stack: ExitStack, title: str, size: tuple[int, int], actions: list[str]) -> "Show":
    """A window, or the terminal where there is no display, or none that answers.

    Raises:
      UsageError: no window can be opened, and there is no terminal.
    """
    from ga3c.play.terminal import terminal
    from ga3c.play.window import NoWindowError, window

    if _has_display():
        try:
            return stack.enter_context(window(title, size))
        except NoWindowError as error:
            if not sys.stdout.isatty():
                raise UsageError(f"--live: no window can be opened: {error}; --out FILE would film it") from None
            print(f"no window can be opened: {error}")
    return stack.enter_context(terminal(actions))


def _check(options: PlayOptions) -> None:
    """Everything that can be known before torch is loaded.

    Raises:
      UsageError: with the first option that is wrong.
    """
    for name, (smallest, largest) in _BOUNDS.items():
        value = getattr(options, name)
        if value is not None and not smallest <= value <= largest:
            raise UsageError(f"--{name}: got {value}; {smallest:g} to {largest:g} would be right")
    check_extra("play")
    if options.out is not None:
        check_film(options.out, options.fps or 1.0)
    if options.live and not _has_display():
        if options.explain and options.out is None:
            raise UsageError("--explain draws in a window or a film, and there is no display; --out FILE would film it")
        if not sys.stdout.isatty():
            raise UsageError("--live: there is no display, and the output is no terminal; --out FILE would film it")
    check_checkpoint(options.path)
