"""Errors that the command line turns into one sentence."""


class UsageError(ValueError):
    """The user asked for what cannot be had: the message says what was received and what would be right."""


class WorkerError(RuntimeError):
    """A role failed: the message begins with its name, as in ``actor 3``, and holds its traceback."""
