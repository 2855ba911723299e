"""The defaults that a preset, a mode, an environment and a machine give, and which options go together."""

import dataclasses
import os
from typing import Any

from ga3c.choices import check_device, check_network, check_precision, check_states, computes_on_cpu
from ga3c.config import PRESET_OPTIONS, Mode, TrainConfig, find_preset, validate_numbers
from ga3c.curves import find_curve, is_simulated, read_curves
from ga3c.envs import EnvSpec
from ga3c.errors import UsageError
from ga3c.film import check_extra
from ga3c.folder import check_out

# Each thread of a GPU's has a stream, of which torch has 32 (see ``cuda``): one is for updates, and while the counts
# change those that leave are still there.
MOST_DEVICE_THREADS = 15


def default_config(mode: Mode, preset: str, spec: EnvSpec, cuda: bool) -> TrainConfig:
    """The options before the user changes any.

    Args:
      mode: the system; a preset means the same to all of them but for the counts, and the learning rate that they need.
      preset: ``fast``, ``paper``, or a file that says what is different from one of them.
      spec: of the environment; images get another network than vectors.
      cuda: whether the model will be on a GPU, which leaves the cores to the actors.

    Raises:
      UsageError: there is no such preset, or the file holds none.
    """
    preset, options = find_preset(preset)
    make = _paper if preset == "paper" else _fast
    config = dataclasses.replace(make(spec.is_image, cuda), **options, mode=mode)
    cores = len(os.sched_getaffinity(0))
    if mode == "a2c":
        # As many samples a batch as in mode ga3c, of environments that are stepped on all cores. With a torch thread
        # on each core, threads that spin while they wait take the environments' time (measured on 2 cores).
        envs = max(1, max(config.min_training_batch, 160) // config.t_max)
        threads = max(1, cores // 2)
        return dataclasses.replace(config, **_NO_QUEUES, actors=1, envs_per_actor=envs, torch_threads=threads)
    if mode == "a3c":
        # A batch is one rollout. The noise of its gradient asks for smaller steps, by the root of the batch; RMSProp
        # with the paper's epsilon and summed losses was made for such batches.
        rate = config.learning_rate
        if config.min_training_batch > config.t_max:
            rate *= (config.t_max / config.min_training_batch) ** 0.5
        return dataclasses.replace(
            config, **_NO_QUEUES, actors=cores, envs_per_actor=1, learning_rate=float(f"{rate:.2g}")
        )
    return config


# What modes without queues do not use.
_NO_QUEUES: dict[str, Any] = {
    "predictors": 1, "trainers": 1, "segments": 2, "min_training_batch": 0, "max_prediction_batch": 128,
    "prediction_patience": 0.0,
}  # fmt: skip


def changes(config: TrainConfig, spec: EnvSpec) -> dict[str, Any]:
    """What a configuration of mode ga3c has otherwise than its preset has it here: the options of a preset file."""
    default = default_config("ga3c", config.preset, spec, cuda=not computes_on_cpu(config.device))
    values = {name: getattr(config, name) for name in PRESET_OPTIONS}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


# Options that only say how many of what there are, or depend on it; another mode has its own.
MODE_OPTIONS = (
    *_NO_QUEUES, "mode", "actors", "envs_per_actor", "learning_rate", "torch_threads", "actor_diversity",
    "actor_timeout",
)  # fmt: skip


def _paper(image: bool, _: bool) -> TrainConfig:
    """NVlabs/GA3C, commit c291be5, Config.py. Its convolutions are padded; ours, as the A3C paper's, are not."""
    return TrainConfig(
        preset="paper", network="small" if image else "mlp", initialisation="uniform", normalise_states=False,
        precision="fp32",
        actors=32, envs_per_actor=1, predictors=2, trainers=2, t_max=5, segments=2,
        min_training_batch=0, max_prediction_batch=128, prediction_patience=0.0,
        optimiser="rmsprop", learning_rate=3e-4, anneal=False, decay=0.99, epsilon=0.1, max_grad_norm=0.0,
        discount=0.99, gae_lambda=1.0, entropy_cost=0.01, value_cost=0.5,
        loss_reduction="sum", log_floor=1e-6, normalise_advantages=False,
    )  # fmt: skip


def _fast(image: bool, cuda: bool) -> TrainConfig:
    """What learns best a minute, as measured in ``benchmarks/README.md``."""
    cores = len(os.sched_getaffinity(0))
    # Two actors a core: while one waits for its actions the other steps. So it is with a GPU: with a core left to the
    # learner, which does not fill it, two cores made 3,716 steps a second instead of 5,336 (simulated Titan X).
    actors = 2 * cores
    if image:
        # Where the model shares the cores, a fuller batch spares more of them than the wait costs.
        return TrainConfig(actors=actors, prediction_patience=0.0 if cuda else 1.0)
    # Adam scales the noise left of a solved task's gradients up to full steps, and unlearns it; with the paper's
    # epsilon inside RMSProp's root, steps shrink with the gradient.
    return TrainConfig(
        network="mlp", precision="fp32", actors=actors, envs_per_actor=8, t_max=32,
        min_training_batch=256, prediction_patience=0.0, optimiser="rmsprop", learning_rate=7e-3, epsilon=0.1,
        max_grad_norm=5.0, discount=0.98, gae_lambda=0.8, entropy_cost=0.0,
    )  # fmt: skip


def in_mode(config: TrainConfig, mode: Mode, spec: EnvSpec, cuda: bool) -> TrainConfig:
    """A configuration continued in another mode: with that mode's own counts and learning rate."""
    default = default_config(mode, config.preset, spec, cuda)
    return dataclasses.replace(config, **{name: getattr(default, name) for name in MODE_OPTIONS})


_ATARI_OPTIONS = (
    "frame_skip", "frame_stack", "noop_max", "fire_on_reset", "sticky_actions", "reward_clip", "episodic_life"
)  # fmt: skip


# Options that a mode does not use: other than the default, they are a mistake.
_UNUSED: dict[str, tuple[str, ...]] = {
    "ga3c": ("actor_diversity",),
    "a3c": (*_NO_QUEUES, "envs_per_actor", "dynamic"),
    "a2c": (*_NO_QUEUES, "dynamic", "actors", "actor_diversity"),
}


def most_counts(config: TrainConfig) -> tuple[int, int, int]:
    """Actors, predictors and trainers that a run may come to have: with ``dynamic`` more than it begins with."""
    if config.dynamic == "off":
        return config.actors, config.predictors, config.trainers
    cores = len(os.sched_getaffinity(0))
    return max(4 * cores, config.actors), max(4, config.predictors), max(4, config.trainers)


def fit(config: TrainConfig, default: TrainConfig) -> TrainConfig:
    """Lowers a default smallest training batch to what the counts that the user chose can fill."""
    if config.min_training_batch != default.min_training_batch:
        return config
    return dataclasses.replace(config, min_training_batch=min(config.min_training_batch, _most_waiting(config)))


def validate_alone(config: TrainConfig) -> None:
    """Checks each option by itself, without loading anything that takes time.

    Raises:
      UsageError: with the first option that is wrong.
    """
    validate_numbers(config)
    find_preset(config.preset)
    check_network(config.network)
    check_device(config.device)
    check_precision(config.precision, config.device)
    if is_simulated(config.device):
        read_curves(config.device)
    if config.resume is None and config.out is not None:
        check_out(config.out)
    if config.record_every is not None:
        check_extra("--record-every")
        if is_simulated(config.device):
            raise UsageError("--record-every: a simulated device learns nothing that could be filmed; leave it out")


def validate(config: TrainConfig, spec: EnvSpec) -> None:
    """Checks what goes together.

    Raises:
      UsageError: with the first option that is wrong.
    """
    validate_alone(config)
    if config.resume is None:  # what has been trained on such states can go on
        check_states(config.network, spec.observation_shape)
    if is_simulated(config.device):
        find_curve(config.device, config.network)
    check_treatment(config, spec)
    default = default_config(config.mode, config.preset, spec, cuda=False)
    for name in _UNUSED[config.mode]:
        if getattr(config, name) != getattr(default, name):
            raise UsageError(
                f"--{name.replace('_', '-')}: got {getattr(config, name)}, but mode {config.mode} does not use it;"
                " leave it out"
            )
    if config.min_training_batch > _most_waiting(config):
        raise UsageError(
            f"--min-training-batch: got {config.min_training_batch}, but {config.actors} actors of"
            f" {config.envs_per_actor} environments with t_max {config.t_max} and {config.segments} segments have at"
            f" most {_most_waiting(config)} samples waiting; that or less would be right"
        )
    _, predictors, trainers = most_counts(config)
    if predictors + trainers > MOST_DEVICE_THREADS and not (
        is_simulated(config.device) or computes_on_cpu(config.device)
    ):
        raise UsageError(
            f"--predictors, --trainers: got {predictors} and {trainers}, but a GPU works side by side for"
            f" {MOST_DEVICE_THREADS} in all; that or less would be right"
        )


def check_treatment(config: TrainConfig, spec: EnvSpec) -> None:
    """Raises UsageError for a treatment of Atari's that other environments do not have."""
    if spec.game is None:
        for name in _ATARI_OPTIONS:
            if getattr(config, name) != getattr(TrainConfig, name):
                raise UsageError(f"--{name.replace('_', '-')}: only Atari games have it, and {config.env} is none")


def _most_waiting(config: TrainConfig) -> int:
    """Samples that can wait for training at once: the segment being written cannot."""
    return config.actors * config.envs_per_actor * config.t_max * (config.segments - 1)
