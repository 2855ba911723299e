"""What a user can say about a training run: every option, its default, and what it must not be.

One frozen class holds the resolved options. Defaults depend on the preset, the kind of environment and the machine, so
they are an instance (``default_config``) that the command line parses onto, not values in the class.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from ga3c.choices import Dynamic, Initialisation, LossConfig, OptimiserName, Precision, Reduction, Schedule
from ga3c.envs import Backend, EnvConfig
from ga3c.errors import UsageError, check_text, nearest

Mode = Literal["ga3c", "a3c", "a2c"]
PRESETS = ("fast", "paper")


@dataclass(frozen=True)
class TrainConfig:
    """Trains an agent and shows how it goes. Ctrl-C stops it; --resume goes on."""

    env: Annotated[str, tyro.conf.Positional] = "Pong-v5"
    """EnvPool id, ALE/<Game>-v5 or another id of ale-py's, Gymnasium id, or module:Id of your own."""

    mode: Mode = "ga3c"
    """ga3c: actors, queues, one model. a3c: workers with a replica each, lock-free updates. a2c: lock step."""
    preset: str = "fast"
    """fast: what learns best a minute. paper: the released GA3C code's configuration. Or a file that `ga3c tune` wrote.
    Sets the defaults of the rest."""
    out: Path | None = None
    """Folder of the run; default runs/<env>-<mode>-<time>."""
    resume: Path | None = None
    """Folder of a run to go on with; options given beside it change its configuration."""
    total_steps: int | None = None
    """Stop after this many agent steps, those before a resume included; looked at a few times a second."""
    minutes: float | None = None
    """Stop after this many minutes, those before a resume included."""
    seed: int = 1
    """Seed of environments, weights and sampling."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints."""
    keep: int = 3
    """Newest checkpoints to keep."""
    record_every: float | None = None
    """Minutes between short films of the newest checkpoint at play, in the run's folder clips; each needs a new
    checkpoint (--checkpoint-every). Default none."""

    actors: int = 4
    """N_A, processes that step environments; a3c: workers."""
    envs_per_actor: int = 8
    """K, environments an actor steps together; a2c: all of them."""
    predictors: int = 1
    """N_P, threads that predict."""
    trainers: int = 1
    """N_T, threads that train."""
    t_max: int = 10
    """Steps in a rollout."""
    actor_timeout: float = 60.0
    """Seconds after which an actor that should do something and does nothing is replaced; a3c: finishes no rollout. So
    long, and a minute at least, may it take to make an environment."""
    on_env_error: Literal["stop", "replace"] = "stop"
    """What to do when an environment raises, or returns what it must not: end the run, or go on with a new actor."""
    segments: int = 2
    """Rollouts of an environment in flight, the one being played included; bounds memory and policy lag."""
    min_training_batch: int = 160
    """Samples an update waits for; 0 takes any rollout."""
    max_prediction_batch: int = 128
    """Most states in a prediction."""
    prediction_patience: float = 1.0
    """Milliseconds that a predictor waits once for more requests while fewer than half of the actors wait."""

    dynamic: Dynamic = "off"
    """Change the counts of actors, predictors and trainers while it trains, by what is measured. climb: one at a time,
    kept if surely better (--dynamic alone means that). paper: the released code's random walk."""

    network: str = "small"
    """One of `ga3c networks`, or module:callable of your own."""
    initialisation: Initialisation = "orthogonal"
    """Of the weights; uniform is the released code's."""
    device: str = "auto"
    """auto takes CUDA where there is one; else cpu, cuda, cuda:N, or simulated:NAME, a device that only waits."""
    normalise_states: bool = True
    """Scale pictures, and bytes that use a small part of their bounds, by the mean and deviation of some random play
    at the start; otherwise only by the bounds of the observation space."""
    precision: Precision = "auto"
    """auto is bf16 on CPUs that compute in it, tf32 on CUDA, else fp32."""
    actor_diversity: bool = False
    """a3c: each worker draws its learning rate and entropy cost, from a third to three times the given ones."""
    torch_threads: int = 1
    """Threads inside one torch operation on the CPU."""

    optimiser: OptimiserName = "adam"
    """rmsprop has its epsilon inside the root, as in the paper."""
    learning_rate: float = 7e-4
    """At the start of the run."""
    anneal: bool = True
    """Lower the learning rate to 0 over --total-steps, else over --minutes, else not at all."""
    decay: float = 0.99
    """Of the optimiser's average of squared gradients."""
    epsilon: float = 1e-5
    """Of the optimiser's denominator."""
    max_grad_norm: float = 0.5
    """Clip the gradient to this norm; 0 does not."""
    discount: float = 0.99
    """Gamma, an agent step."""
    gae_lambda: float = 0.95
    """1 is the paper's n-step return."""
    entropy_cost: float = 0.002
    """Weight of the entropy bonus."""
    value_cost: float = 0.5
    """Weight of the squared value error."""
    loss_reduction: Reduction = "mean"
    """Over the samples of a batch; the released code sums."""
    log_floor: float = 0.0
    """Released code: log(max(pi, 1e-6)), with this floor; 0 is log_softmax."""
    normalise_advantages: bool = False
    """Scale a batch's advantages to mean 0 and deviation 1."""

    backend: Backend = "auto"
    """auto takes EnvPool where it has the environment."""
    frame_skip: int = 4
    """Atari: frames an action is repeated for."""
    frame_stack: int = 4
    """Atari: frames in a state."""
    noop_max: int = 30
    """Atari: no-ops at the start of a game, at most."""
    fire_on_reset: bool = True
    """Atari: press FIRE at the start of a game that has it."""
    sticky_actions: float | None = None
    """Atari: probability to repeat the last action; default is what the id means: 0.25 for ALE/ ids, what ale-py has
    registered for its other ids, and 0 for EnvPool's."""
    reward_clip: bool = True
    """Atari: clip training rewards to [-1, 1]; scores never are."""
    episodic_life: bool = False
    """Atari: a lost life ends an episode for training; scores are of whole games."""

    def env_config(self) -> EnvConfig:
        """The part that makes environments."""
        return EnvConfig(
            id=self.env,
            backend=self.backend,
            frame_skip=self.frame_skip,
            frame_stack=self.frame_stack,
            noop_max=self.noop_max,
            fire_on_reset=self.fire_on_reset,
            sticky_actions=self.sticky_actions,
            reward_clip=self.reward_clip,
            episodic_life=self.episodic_life,
        )

    def schedule(self) -> Schedule:
        """The learning rate over the run."""
        total_s = 60 * self.minutes if self.minutes else None
        return Schedule(self.learning_rate, self.total_steps, total_s) if self.anneal else Schedule(self.learning_rate)

    def loss_config(self) -> LossConfig:
        """The part that makes the loss."""
        return LossConfig(
            entropy_cost=self.entropy_cost,
            value_cost=self.value_cost,
            reduction=self.loss_reduction,
            log_floor=self.log_floor,
            normalise_advantages=self.normalise_advantages,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``config.json`` and checkpoints."""
        values = dataclasses.asdict(self)
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def config_from_json(values: Any) -> TrainConfig:
    """The inverse of ``to_json``; fields it does not know are left out, so that older runs can be read.

    Raises:
      ValueError: that is no configuration; the message says what is wrong.
    """
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}, not an object")
    known = {f.name for f in dataclasses.fields(TrainConfig)}
    values = {k: v for k, v in values.items() if k in known}
    kinds = get_type_hints(TrainConfig)
    for name, value in values.items():
        kind = str | None if name in _PATHS else kinds[name]
        if not _is_of(value, kind):
            raise ValueError(f"{name} is {value!r}")
    config = TrainConfig(**values | {name: Path(values[name]) if values.get(name) else None for name in _PATHS})
    validate_numbers(config)
    return config


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Values that a Python program gives for fields of ``TrainConfig``, of the fields' types.

    Raises:
      UsageError: there is no such option, or the value is of another type.
    """
    kinds = get_type_hints(TrainConfig)
    values = dict(options)
    for name, value in options.items():
        if name not in kinds:
            raise UsageError(f"there is no option {name!r}{nearest(name, list(kinds))}")
        if name in _PATHS and isinstance(value, str | os.PathLike):
            values[name] = Path(value)
        elif not _is_of(value, kinds[name]):
            raise UsageError(f"--{name.replace('_', '-')}: got {value!r}; {_in_words(kinds[name])} would be right")
    check_text(str(value) for value in values.values() if isinstance(value, str | Path))
    return values


def _in_words(kind: Any) -> str:
    """A field's type, as in ``int | None``, or its choices."""
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    return kind.__name__ if isinstance(kind, type) else str(kind)


_PATHS = ("out", "resume")
_NOT_PRESET = (*_PATHS, "env", "mode", "preset", "seed", "total_steps", "minutes", "record_every")
PRESET_OPTIONS = tuple(field.name for field in dataclasses.fields(TrainConfig) if field.name not in _NOT_PRESET)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value read from JSON is of an annotated type."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_is_of(value, one) for one in get_args(kind))
    if isinstance(value, bool):  # which Python counts among the integers
        return kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def find_preset(name: str) -> tuple[str, dict[str, Any]]:
    """A preset's name, and what a file changes of it: ``{"preset": NAME, "options": {...}}``, as ``ga3c tune`` writes.

    Raises:
      UsageError: it is neither the name of a preset nor such a file.
    """
    if name in PRESETS:
        return name, {}
    path = Path(name)
    if not path.is_file():
        near = nearest(name, list(PRESETS))
        raise UsageError(f"--preset: got {name!r}{near}; {', '.join(PRESETS)}, or a file of ga3c tune's would be right")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        base, options = values["preset"], values["options"]
        if base not in PRESETS:
            raise ValueError(f"preset is {base!r}")
        kinds = {name: kind for name, kind in get_type_hints(TrainConfig).items() if name in PRESET_OPTIONS}
        for option, value in options.items():
            if option not in kinds or not _is_of(value, kinds[option]):
                raise ValueError(f"{option} is {value!r}")
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"--preset: {path} holds no preset: {type(error).__name__}: {error}") from None
    return base, options


def read_config(folder: Path) -> TrainConfig:
    """The configuration of the run in ``folder``.

    Raises:
      UsageError: there is none, or it cannot be read.
    """
    path = folder / "config.json"
    try:
        return config_from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        missing = "is no run folder: it has no config.json" if folder.is_dir() else "does not exist"
        raise UsageError(f"--resume: {folder} {missing}; the folder of a run would be right") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--resume: {path} cannot be read: {error}") from None


# Option: (smallest, largest). The largest keep a slip of the finger from becoming a failed allocation.
_BOUNDS: dict[str, tuple[float, float]] = {
    "total_steps": (1, 10**15), "minutes": (0.01, 10**7), "seed": (0, 2**31 - 1), "checkpoint_every": (1, 10**7),
    "keep": (1, 10**6), "actors": (1, 1024), "envs_per_actor": (1, 1024), "predictors": (1, 64), "trainers": (1, 64),
    "t_max": (1, 10_000), "segments": (2, 64), "min_training_batch": (0, 10**6), "max_prediction_batch": (1, 10**5),
    "record_every": (0.01, 10**7), "prediction_patience": (0, 1000), "actor_timeout": (0.1, 10**7),
    "torch_threads": (1, 1024), "learning_rate": (0, 100), "decay": (0, 0.999999), "epsilon": (0, 1000),
    "max_grad_norm": (0, 10**9), "discount": (0, 1), "gae_lambda": (0, 1), "entropy_cost": (0, 1000),
    "value_cost": (0, 1000), "log_floor": (0, 0.1), "frame_skip": (1, 60), "frame_stack": (1, 64),
    "noop_max": (0, 1000), "sticky_actions": (0, 1),
}  # fmt: skip


def validate_numbers(config: TrainConfig) -> None:
    """Checks each number by itself.

    Raises:
      UsageError: with the first option that is out of bounds.
    """
    for name, (smallest, largest) in _BOUNDS.items():
        value = getattr(config, name)
        if value is not None and not smallest <= value <= largest:
            raise UsageError(f"--{name.replace('_', '-')}: got {value}; {smallest:g} to {largest:g} would be right")
