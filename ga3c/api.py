"""What a Python program calls: ``ga3c.train``, ``ga3c.load``, ``ga3c.make_vec``. Without torch until it is needed.

The options are those of the command line, by the names of ``TrainConfig``'s fields; they are read, checked and run by
the same code.
"""

import signal
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from ga3c.choices import Dynamic, Initialisation, OptimiserName, Precision, Reduction, find_factory
from ga3c.config import Mode, TrainConfig, check_options, validate_numbers
from ga3c.envs import Backend, EnvConfig, env_spec
from ga3c.envs.gym_vector import GymVectorEnv
from ga3c.errors import UsageError, nearest
from ga3c.events import Events, OnEpisode, OnUpdate, Run
from ga3c.launch import launching
from ga3c.presets import check_treatment
from ga3c.resolve import resolve, take_options
from ga3c.user_code import main_module_name, refuse_nested_run

if TYPE_CHECKING:
    from torch import nn

    from ga3c.policy import Policy


MAX_ENVS = 1024  # a slip of the finger must not become a failed allocation


class EnvOptions(TypedDict, total=False):
    """Options of an environment; ``EnvConfig`` says what they mean."""

    backend: Backend
    frame_skip: int
    frame_stack: int
    noop_max: int
    fire_on_reset: bool
    sticky_actions: float | None
    reward_clip: bool
    episodic_life: bool


class TrainOptions(EnvOptions, total=False):
    """Options of a training run; ``ga3c train --help`` and ``TrainConfig`` say what they mean."""

    mode: Mode
    preset: str
    out: str | PathLike[str] | None
    resume: str | PathLike[str] | None
    total_steps: int | None
    minutes: float | None
    seed: int
    checkpoint_every: float
    keep: int
    record_every: float | None
    actors: int
    envs_per_actor: int
    predictors: int
    trainers: int
    t_max: int
    actor_timeout: float
    on_env_error: Literal["stop", "replace"]
    segments: int
    min_training_batch: int
    max_prediction_batch: int
    prediction_patience: float
    dynamic: Dynamic
    network: "str | Callable[[tuple[int, ...], int], nn.Module]"
    initialisation: Initialisation
    device: str
    normalise_states: bool
    precision: Precision
    actor_diversity: bool
    torch_threads: int
    optimiser: OptimiserName
    learning_rate: float
    anneal: bool
    decay: float
    epsilon: float
    max_grad_norm: float
    discount: float
    gae_lambda: float
    entropy_cost: float
    value_cost: float
    loss_reduction: Reduction
    log_floor: float
    normalise_advantages: bool


def train(
    env: str | None = None,
    *,
    on_update: OnUpdate | None = None,
    on_episode: OnEpisode | None = None,
    quiet: bool = False,
    **options: Unpack[TrainOptions],
) -> Run:
    """Trains as ``ga3c train`` does, until the budget is used up; without ``total_steps`` or ``minutes`` it has none.

    Callbacks are called in the caller's thread, a few times a second, for each event in order. Training goes on beside
    them; of more than 10,000 events that wait the oldest are dropped, and of those that wait at the end the ones that
    ten seconds do not suffice for. One that returns False ends the run as a budget does. What one raises ends it too,
    after a checkpoint, and is passed on.

    Ctrl-C ends the run with a checkpoint, and is a KeyboardInterrupt then; SIGTERM likewise ends the process then. A
    second one does so at once. In a thread other than the main one a run hears no signals: a callback can stop it.

    Actors are processes of their own, which import the environment's module. A script that is that module needs no main
    guard: actors import it up to its call of ``train``.

    What is left in the process: its malloc keeps freed memory, as fast training needs. A thread may still be busy with
    a batch when ``train`` returns; the program then waits for it before it exits, for about a minute, and exits with
    code 1 if that is not enough. An environment that hangs while it is made ends the process after ``actor_timeout``
    seconds, and not before a minute: no exception could reach it.

    Args:
      env: as on the command line: ``Pong-v5`` where nothing is said, or the resumed run's.
      on_update: is given an ``UpdateEvent`` for each update of the model.
      on_episode: is given an ``EpisodeEvent`` for each finished game.
      quiet: show nothing of what the command line shows.
      options: fields of ``TrainConfig``; ``network`` can also be a function or class (observation shape, number of
        actions) -> module at the top level of a module that can be imported.

    Raises:
      UsageError: an option is wrong, or cannot be had; the message names it. Nothing was written, unless the mistake
        only shows in a worker. Also if ``train`` is called inside a worker, or while a user's module is imported.
      EnvError: the environment failed before anything was started.
      WorkerError: a role failed; the message has its traceback. A checkpoint of what was learnt before is left.
    """
    refuse_nested_run()
    for name, callback in (("on_update", on_update), ("on_episode", on_episode)):
        if callback is not None and not callable(callback):
            raise UsageError(f"{name}: got {callback!r}; a function would be right")
    values: dict[str, Any] = dict(options)
    if env is not None:
        values["env"] = env
    if callable(values.get("network")):
        values["network"] = _importable(values["network"])
    said = take_options(values)
    with launching(said.config.mode, Events(on_update, on_episode), quiet=quiet) as launch:
        run = launch(*resolve(said))
    if run.exitcode:
        signal.raise_signal(run.exitcode - 128)  # to whoever handled it before: usually KeyboardInterrupt, or the end
    return run


def _importable(factory: Callable[..., Any]) -> str:
    """As in ``module:callable``: what a checkpoint can say, and other processes can find.

    Raises:
      UsageError: nothing can be imported by its name, or something else.
    """
    module = main_module_name() if factory.__module__ == "__main__" else factory.__module__
    name = f"{module or '__main__'}:{getattr(factory, '__qualname__', '')}"
    try:
        found = None if module is None else find_factory(name)
    except UsageError:
        found = None
    if found is not factory:
        raise UsageError(
            f"--network: got {factory!r}, which cannot be imported as {name!r};"
            " expected a function or class at the top level of a module that can be imported"
        )
    return name


def load(path: str | PathLike[str], *, device: str = "auto", seed: int = 0) -> "Policy":
    """Loads a trained policy: from a checkpoint, or from a run's folder its newest checkpoint that can be used.

    ``policy.act(observations)`` gives actions, ``policy.judge(observations)`` probabilities and values.

    Args:
      path: of the run's folder, or of a checkpoint.
      device: auto takes CUDA where there is one; else cpu, cuda, cuda:N.
      seed: of the actions that are drawn.

    Raises:
      UsageError: there is none, it is damaged, or its environment, network or device cannot be had.
    """
    from ga3c.policy import load_policy

    return load_policy(Path(path), device=device, seed=seed)


def make_vec(env: str | EnvConfig, num_envs: int = 1, *, seed: int = 1, **options: Unpack[EnvOptions]) -> GymVectorEnv:
    """Makes N games, with the treatment that they get in training, as a ``gymnasium.vector.VectorEnv``.

    Args:
      env: an id, as for ``train``; or the whole treatment, as ``policy.config.env_config()`` has it.
      num_envs: N.
      seed: of the games; ``reset(seed=...)`` sets another.
      options: fields of ``EnvConfig``. Rewards are clipped as in training (``reward_clip``); ``infos`` has them as
        they are.

    Raises:
      UsageError: the environment, or an option, cannot be had.
    """
    known = list(EnvOptions.__annotations__)
    for name in options:
        if name not in known:
            raise UsageError(f"there is no option {name!r}{nearest(name, known)}")
    if type(num_envs) is not int or not 1 <= num_envs <= MAX_ENVS:
        raise UsageError(f"num_envs: got {num_envs!r}; 1 to {MAX_ENVS} would be right")
    treatment = {} if isinstance(env, str) else {name: getattr(env, name) for name in known}
    name = env if isinstance(env, str) else env.id
    config = TrainConfig(**check_options({**treatment, **options, "env": name, "seed": seed}))
    validate_numbers(config)
    check_treatment(config, env_spec(config.env_config()))
    return GymVectorEnv(config.env_config(), num_envs, seed)
