"""States that stay on a device, and slabs that it reads: the bookkeeping, on the CPU."""

import dataclasses
import gc
import time

import numpy as np
import pytest
import torch

from ga3c.build import build_model
from ga3c.checkpoint import Progress
from ga3c.envs import EnvConfig, env_spec
from ga3c.ga3c import Ga3c
from ga3c.metrics import Meters
from ga3c.presets import default_config
from ga3c.resident import PinnedSlabs, ResidentStates
from ga3c.slabs import Place, Rollouts, Slab, SlabLayout
from ga3c.system import Context

CPU = torch.device("cpu")
PLENTY = 1 << 30


def filled_slab(shape=(4, 84, 84), envs=3, *, channels_last=False):
    slab = Slab(SlabLayout(2, 4, envs, shape, "uint8", channels_last=channels_last))
    slab.observations[...] = np.random.default_rng(envs).integers(0, 256, slab.observations.shape, np.uint8)
    return slab


def keep_segment(resident, slab, segment):
    for step in range(slab.layout.t_max):
        states = torch.from_numpy(slab.observations[segment, step].copy())
        resident.keep([Place(slab, segment, step)], states)


@pytest.mark.parametrize(
    ("shape", "channels_last"), [((4, 84, 84), True), ((4, 84, 84), False), ((84, 84, 3), False), ((5,), False)]
)
def test_rollouts_are_gathered_as_the_slabs_hold_them(shape, channels_last):
    resident = ResidentStates(CPU, PLENTY)
    slabs = [filled_slab(shape, envs, channels_last=channels_last) for envs in (3, 2)]
    for slab, segment in zip(slabs, (1, 0), strict=True):
        keep_segment(resident, slab, segment)
    gathered = resident.gather([Rollouts(slabs[1], 0, lambda _: None), Rollouts(slabs[0], 1, lambda _: None)])
    expected = np.concatenate(
        [slabs[1].observations[0].reshape(-1, *shape), slabs[0].observations[1].reshape(-1, *shape)]
    )
    np.testing.assert_array_equal(gathered.numpy(), expected)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert gathered.is_contiguous(memory_format=layout), "convolutions would copy it"


def test_a_batch_of_several_requests_is_kept_by_each_ones_place():
    resident = ResidentStates(CPU, PLENTY)
    first, second = filled_slab(envs=3), filled_slab(envs=2)
    for step in range(4):
        both = np.concatenate([second.observations[1, step], first.observations[0, step]])
        resident.keep([Place(second, 1, step), Place(first, 0, step)], torch.from_numpy(both))
    for slab, segment in ((first, 0), (second, 1)):
        gathered = resident.gather([Rollouts(slab, segment, lambda _: None)])
        np.testing.assert_array_equal(gathered.numpy(), slab.observations[segment].reshape(-1, 4, 84, 84))


def test_a_gathered_batch_is_a_copy_that_can_be_trained_on():
    resident = ResidentStates(CPU, PLENTY)
    slab = Slab(SlabLayout(2, 2, 2, (5,), "float32"))
    with torch.inference_mode():
        keep_segment(resident, slab, 0)
    gathered = resident.gather([Rollouts(slab, 0, lambda _: None)])
    slab.observations[0] = 7.0
    keep_segment(resident, slab, 0)
    assert (gathered == 0).all()
    weight = torch.ones(5, requires_grad=True)
    (gathered * weight).sum().backward()  # which saves the states for the backward pass


def test_no_more_memory_is_taken_than_allowed_and_that_of_a_slab_that_is_gone_is_free_again():
    first, second = filled_slab(), filled_slab()
    resident = ResidentStates(CPU, first.observations.nbytes)
    keep_segment(resident, first, 0)
    keep_segment(resident, second, 0)
    assert resident.gather([Rollouts(first, 0, lambda _: None)]) is not None
    assert resident.gather([Rollouts(second, 0, lambda _: None)]) is None
    del first
    gc.collect()
    third = filled_slab()
    keep_segment(resident, third, 1)
    assert resident.gather([Rollouts(third, 1, lambda _: None)]) is not None


class FakeRuntime:
    """Stands for CUDA's: notes what is pinned, and refuses a second time as CUDA does."""

    def __init__(self, refuses=False):
        self.refuses = refuses
        self.asked = 0
        self.pinned = {}

    def cudaHostRegister(self, address, nbytes, flags):  # noqa: N802  (CUDA's name)
        self.asked += 1
        if self.refuses or address in self.pinned or flags:
            return 1
        self.pinned[address] = nbytes
        return 0

    def cudaHostUnregister(self, address):  # noqa: N802
        del self.pinned[address]
        return 0


def test_a_slab_is_pinned_once_and_released_when_it_goes():
    runtime = FakeRuntime()
    slabs = PinnedSlabs(runtime, CPU)
    first, second = filled_slab(), filled_slab(envs=2)
    assert all(slabs.pin(slab) for slab in (first, second, first))
    address = first.observations.ctypes.data
    assert runtime.pinned[address] == first.observations.nbytes
    assert runtime.asked == 2
    del first
    gc.collect()
    assert list(runtime.pinned) == [second.observations.ctypes.data]


def test_a_slab_that_cannot_be_pinned_is_not_asked_for_again():
    runtime = FakeRuntime(refuses=True)
    slabs = PinnedSlabs(runtime, CPU)
    slab = filled_slab()
    assert not slabs.pin(slab)
    assert not slabs.pin(slab)
    assert runtime.asked == 1


@pytest.mark.parametrize("env", ["Pong-v5", "CartPole-v1"])
def test_in_a_whole_system_what_stayed_is_what_the_slabs_hold(env):
    spec = env_spec(EnvConfig(env))
    config = dataclasses.replace(
        default_config("ga3c", "fast", spec, cuda=False), env=env, device="cpu", actors=3, envs_per_actor=2,
        predictors=2, trainers=2, t_max=4, min_training_batch=16, max_prediction_batch=4,
    )  # fmt: skip
    model, _ = build_model(config, spec)
    model.resident = ResidentStates(CPU, PLENTY)
    recall, same = model.recall, []

    def checked(rollouts):
        states = recall(rollouts)
        held = np.concatenate([r.field("observations").reshape(r.samples, *spec.observation_shape) for r in rollouts])
        same.append(np.array_equal(states.numpy(), held))
        return states

    model.recall = checked
    system = Ga3c(Context(config, spec, model, Meters(1), lambda: 1e-3, lambda text: None, Progress()))
    system.start()
    deadline = time.monotonic() + 60
    while len(same) < 30 and system.failure is None and time.monotonic() < deadline:
        time.sleep(0.05)
    system.stop()
    assert system.failure is None, system.failure
    assert len(same) >= 30
    assert all(same)
