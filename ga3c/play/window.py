"""Shows a game in a window, where there is a display."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
from PIL import Image

from ga3c.play.game import Moment


class NoWindowError(RuntimeError):
    """No window can be opened; the message says why."""


@contextmanager
def window(title: str, size: tuple[int, int]) -> Iterator[Callable[[Moment, Image.Image], bool]]:
    """Gives what shows a picture of ``size``, and says whether the window is open still.

    Raises:
      NoWindowError: pygame is missing, or cannot open one.
    """
    if find_spec("pygame") is None:
        raise NoWindowError("pygame-ce is missing, which pip install 'ga3c[video]' would install")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame

    try:
        pygame.display.init()  # and nothing else of it: there is no sound
        surface = pygame.display.set_mode(size)
    except pygame.error as error:
        pygame.display.quit()
        raise NoWindowError(str(error)) from None
    pygame.display.set_caption(title)

    def show(_: Moment, picture: Image.Image) -> bool:
        pygame.surfarray.blit_array(surface, np.asarray(picture).swapaxes(0, 1))
        pygame.display.flip()
        return all(event.type != pygame.QUIT for event in pygame.event.get())

    try:
        yield show
    finally:
        pygame.display.quit()
