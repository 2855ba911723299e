"""A trained agent at play, filmed or live.

``game`` plays step by step, ``picture`` draws what is seen of a step, ``window`` or ``terminal`` shows it
live, and ``command`` has the options of ``ga3c play`` and leads through it.
"""

from ga3c.play.command import PlayOptions, play, run_play

__all__ = ["PlayOptions", "play", "run_play"]
