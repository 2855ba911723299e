"""Atari games that ale-py has registered with Gymnasium, whatever their ids: what they are, and their treatment."""

from importlib.util import find_spec
from typing import Any, NamedTuple

import gymnasium

from ga3c.envs.base import ALE_STICKY_ACTIONS, ATARI_MAX_EPISODE_STEPS, EnvConfig, is_ale, sticky_actions
from ga3c.errors import UsageError

_PACKAGE = "ale_py"
_PIP = "pip install 'ga3c[ale]'"


class AtariGame(NamedTuple):
    """What an id of ale-py's means.

    Fields:
      game: in lower case, as in ``ms_pacman``.
      sticky_actions: probability that the last action is repeated, as configured, or as the id is registered with.
    """

    game: str
    sticky_actions: float


class FireOnReset(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Presses FIRE at the start of a game that waits for it, as EnvPool does."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Resets, then presses FIRE if the game knows that button."""
        observation, info = self.env.reset(**kwargs)
        meanings = self.env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
        if "FIRE" in meanings:
            observation, _, terminated, truncated, info = self.env.step(meanings.index("FIRE"))
            if terminated or truncated:
                observation, info = self.env.reset(**kwargs)
        return observation, info


def register_games(config: EnvConfig) -> None:
    """Lets ale-py register its ids, where it is installed.

    Raises:
      UsageError: it is not installed, and the id is of the form that only it has.
    """
    if find_spec(_PACKAGE) is not None:
        import ale_py

        gymnasium.register_envs(ale_py)
    elif is_ale(config):
        raise UsageError(
            f"environment {config.id!r} on Gymnasium needs ale-py and OpenCV: {_PIP},"
            " or leave --backend at auto to play it on EnvPool"
        )


def find_game(config: EnvConfig) -> AtariGame | None:
    """The game, or None where the id is not one of an Atari game; it must be registered.

    Raises:
      UsageError: it is an Atari game that cannot get the treatment.
    """
    registration = gymnasium.registry[config.id.rpartition(":")[2]]
    made = registration.entry_point
    module = made.partition(":")[0] if isinstance(made, str) else getattr(made, "__module__", "")
    if module.partition(".")[0] != _PACKAGE:
        return None
    settings = registration.kwargs
    kind = settings.get("obs_type", "rgb")
    if kind not in ("rgb", "grayscale"):
        raise UsageError(
            f"environment {config.id!r} has observations of type {kind!r};"
            " expected an Atari game with pictures, as in ALE/Pong-v5"
        )
    if find_spec("cv2") is None:
        raise UsageError(f"environment {config.id!r} on Gymnasium needs OpenCV for its pictures: {_PIP}")
    # ale-py's own default is that of its version-5 ids.
    sticky = sticky_actions(config, settings.get("repeat_action_probability", ALE_STICKY_ACTIONS))
    return AtariGame(str(settings.get("game")), sticky)


def make_game(config: EnvConfig, game: AtariGame, **drawn: Any) -> gymnasium.Env[Any, Any]:
    """One game with the treatment; ``drawn`` are options of how it draws itself."""
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    env = gymnasium.make(
        config.id,
        frameskip=1,
        repeat_action_probability=game.sticky_actions,
        max_num_frames_per_episode=ATARI_MAX_EPISODE_STEPS * config.frame_skip,
        **drawn,
    )
    env = AtariPreprocessing(env, noop_max=config.noop_max, frame_skip=config.frame_skip)
    if config.fire_on_reset:
        env = FireOnReset(env)
    return FrameStackObservation(env, config.frame_stack)
