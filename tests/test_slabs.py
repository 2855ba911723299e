import os

import numpy as np
import pytest

from ga3c.envs import EnvSpec
from ga3c.slabs import Slab, SlabLayout, create_slab_memory

LAYOUT = SlabLayout(segments=2, t_max=3, envs=2, observation_shape=(4, 84, 84), observation_dtype="uint8")


def test_what_one_side_writes_the_other_reads_in_place():
    fd = create_slab_memory(LAYOUT)
    actors, learners = Slab(LAYOUT, fd), Slab(LAYOUT, fd)
    os.close(fd)
    for name, (shape, dtype) in LAYOUT.fields().items():
        ours, theirs = getattr(actors, name), getattr(learners, name)
        assert (ours.shape, ours.dtype) == (shape, np.dtype(dtype))
        ours[...] = 1
        assert (theirs == 1).all()


def test_fields_do_not_overlap():
    fd = create_slab_memory(LAYOUT)
    slab = Slab(LAYOUT, fd)
    os.close(fd)
    names = list(LAYOUT.fields())
    for value, name in enumerate(names, start=1):
        getattr(slab, name)[...] = value % 2 if getattr(slab, name).dtype == bool else value
    for value, name in enumerate(names, start=1):
        array = getattr(slab, name)
        assert (array == (value % 2 if array.dtype == bool else value)).all()


def test_a_state_is_stored_once_as_bytes():
    states = 2 * 3 * 2 * 4 * 84 * 84
    assert states < LAYOUT.nbytes < states + 2000


def test_a_slab_needs_no_room_in_dev_shm_and_vanishes_with_its_last_user():
    before = set(os.listdir("/dev/shm"))
    fd = create_slab_memory(LAYOUT)
    slab = Slab(LAYOUT, fd)
    os.close(fd)
    slab.rewards[...] = 3.0
    assert set(os.listdir("/dev/shm")) == before


@pytest.mark.parametrize(
    ("shape", "last"),
    [((4, 84, 84), True), ((1, 64, 96), True), ((84, 84, 3), False), ((4,), False), ((64, 32, 32), False)],
)
@pytest.mark.parametrize("on_cpu", [True, False])
def test_images_lie_as_the_model_reads_them_and_are_read_as_they_were_written(shape, last, on_cpu):
    spec = EnvSpec("Some-v0", "gymnasium", shape, "uint8", num_actions=3, frames_per_step=1, game=None, protocol="none")
    layout = SlabLayout.of(spec, segments=2, t_max=3, envs=2, on_cpu=on_cpu)
    last = last and on_cpu
    slab = Slab(layout)
    states = np.random.default_rng(1).integers(0, 256, (2, *shape), np.uint8)
    slab.write_states(1, 2, states)
    assert layout.channels_last is last
    np.testing.assert_array_equal(slab.observations[1, 2], states)
    in_memory = np.moveaxis(slab.observations[1, 2], 1, -1) if last else slab.observations[1, 2]
    assert in_memory.flags.c_contiguous
    assert not slab.observations[0].any()
    assert not slab.observations[1, :2].any()


def test_views_of_a_step_are_its_place_in_the_arrays():
    slab = Slab(LAYOUT)
    for segment in range(2):
        for t in range(3):
            step = slab.steps[segment][t]
            assert len(vars(step)) == 7
            for name, view in vars(step).items():
                whole = getattr(slab, name)
                assert view.shape == whole.shape[2:]
                assert np.shares_memory(view, whole[segment, t])
                view[...] = 1
                assert whole.any()
                view[...] = 0
                assert not whole.any()
