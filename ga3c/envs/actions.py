"""What the actions of an environment are called."""

from importlib.util import find_spec

from ga3c.envs.base import EnvSpec


def action_names(spec: EnvSpec) -> list[str]:
    """A name for each action: of the console's joystick where ale-py is there to tell, else its number.

    EnvPool has ALE inside and plays with the same smallest sets of actions, in the same order, but does not name them.
    """
    names = _joystick(spec.game) if spec.game is not None and find_spec("ale_py") is not None else []
    return names if len(names) == spec.num_actions else [str(action) for action in range(spec.num_actions)]


def _joystick(game: str) -> list[str]:
    """What moves the game, as in UPRIGHTFIRE; none where ale-py does not have it."""
    from ale_py import ALEInterface, LoggerMode, roms

    ALEInterface.setLoggerMode(LoggerMode.Error)
    path = roms.get_rom_path(game)
    if path is None:
        return []
    ale = ALEInterface()
    ale.loadROM(path)
    return [action.name for action in ale.getMinimalActionSet()]
