"""A trained policy by itself, from a checkpoint to actions: what evaluates, plays or exports an agent uses it."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ga3c.checkpoint import Checkpoint, channels_last_in, load_network, read_newest
from ga3c.config import TrainConfig
from ga3c.device import place, plain_torch, resolve_device
from ga3c.envs import EnvSpec, env_spec
from ga3c.errors import UsageError
from ga3c.networks import build_network


class Judgement(NamedTuple):
    """What a network makes of B states: the policy's probabilities [B, A], and V(s) [B]; float32."""

    probabilities: NDArray[np.float32]
    values: NDArray[np.float32]


class Policy:
    """A trained network that acts; it computes in float32. Not for several threads at once.

    Attributes:
      path: the checkpoint.
      env_steps: agent steps it was trained for.
      config: of the run that made it.
      spec: of its environment.
      network: on ``device``; states [B, ...] to (logits [B, A], values [B]).
      device: where it computes.
    """

    def __init__(self, checkpoint: Checkpoint, path: Path, device: torch.device, seed: int) -> None:
        """``seed`` is of the actions that are drawn.

        Raises:
          UsageError: the environment or the network cannot be had, or the weights are another network's.
        """
        self.path = path
        self.env_steps = checkpoint.progress.env_steps
        self.config: TrainConfig = checkpoint.config
        self.spec: EnvSpec = env_spec(checkpoint.config.env_config())
        self.device = device
        with plain_torch():
            network = build_network(
                self.config.network,
                self.spec.observation_shape,
                self.spec.num_actions,
                self.config.initialisation,
                channels_last=channels_last_in(checkpoint, self.spec.observation_shape),
            )
        load_network(checkpoint, network, path)
        self.network = place(network, device).eval().requires_grad_(False)
        self._draw = np.random.default_rng(seed)

    def judge(self, observations: NDArray[Any]) -> Judgement:
        """Action probabilities and values of a batch of observations [B, ...].

        Raises:
          UsageError: that is no batch of the environment's observations.
        """
        shape = self.spec.observation_shape
        if observations.ndim == 0 or observations.shape[1:] != shape:
            raise UsageError(
                f"got observations {list(observations.shape)}; [B, {', '.join(map(str, shape))}] would be right"
            )
        states = torch.from_numpy(np.ascontiguousarray(observations, self.spec.observation_dtype))
        with torch.inference_mode():
            logits, values = self.network(states.to(self.device))
            probabilities = torch.softmax(logits.float(), dim=1)
            return Judgement(probabilities.cpu().numpy(), values.float().cpu().numpy())

    def act(self, observations: NDArray[Any], *, greedy: bool = False) -> NDArray[np.int64]:
        """An action for each observation [B, ...], or for a single one [...]: drawn from the policy, or the likeliest.

        Raises:
          UsageError: those are no observations of the environment.
        """
        observations = np.asarray(observations)
        if observations.shape == self.spec.observation_shape:
            action: NDArray[np.int64] = self.act(observations[np.newaxis], greedy=greedy)[0]
            return action
        return self.choose(self.judge(observations), greedy=greedy)

    def choose(self, judgement: Judgement, *, greedy: bool = False) -> NDArray[np.int64]:
        """An action for each state judged: drawn from the policy, or the likeliest."""
        weights: NDArray[Any] = judgement.probabilities
        if not greedy:
            # Exponential races: the smallest of Exp(1) / p is action a with probability p(a).
            weights = weights / self._draw.standard_exponential(weights.shape)  # float64: never 0
        actions: NDArray[np.int64] = weights.argmax(axis=1)
        return actions


def load_policy(path: Path, *, device: str = "auto", seed: int = 0) -> Policy:
    """Reads a checkpoint, or the newest of a run's folder that can be used.

    Raises:
      UsageError: there is none, it is damaged, or its environment, network or device cannot be had.
    """
    where = resolve_device(device)
    path = path.absolute()  # code of the user's may change the working directory
    policy, unusable = read_newest(path, lambda checkpoint, file: Policy(checkpoint, file, where, seed))
    for sentence in unusable:
        warnings.warn(f"skipped: {sentence}", stacklevel=2)
    return policy
