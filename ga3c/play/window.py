"""Shows a game in a window, where there is a display."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
from PIL import Image

from ga3c.errors import UsageError
from ga3c.play.game import Moment


@contextmanager
def window(title: str) -> Iterator[Callable[[Moment, Image.Image], bool]]:
    """Gives what shows a picture, and says whether the window is open still; the first decides its size.

    Raises:
      UsageError: pygame is missing, or cannot open it.
    """
    if find_spec("pygame") is None:
        raise UsageError("--live opens a window with pygame-ce; pip install 'ga3c[video]' would be right")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame

    try:
        pygame.display.init()  # and nothing else of it: there is no sound
    except pygame.error as error:
        raise UsageError(f"no window can be opened: {error}; without DISPLAY --live draws in the terminal") from None

    def show(_: Moment, picture: Image.Image) -> bool:
        surface = pygame.display.get_surface() or pygame.display.set_mode(picture.size)
        pygame.display.set_caption(title)
        pygame.surfarray.blit_array(surface, np.asarray(picture).swapaxes(0, 1))
        pygame.display.flip()
        return all(event.type != pygame.QUIT for event in pygame.event.get())

    try:
        yield show
    finally:
        pygame.display.quit()
