"""What only a CUDA device can show: the order of streams, recorded forward passes, states that stay there."""

import gc
import threading

import numpy as np
import pytest
import torch

from ga3c.cuda import Recordings
from ga3c.slabs import Place, Rollouts, Slab, SlabLayout
from tests.test_model import make_batch, make_model

pytestmark = pytest.mark.gpu
IMAGES = (4, 84, 84)


def frames(count, seed=0, layout=torch.contiguous_format):
    states = torch.randint(0, 256, (count, *IMAGES), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return states.contiguous(memory_format=layout).pin_memory()


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("count", [1, 3, 16, 33, 128, 600])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_recorded_forward_pass_gives_what_a_plain_one_gives(precision, count, layout):
    cuda = torch.device("cuda")
    plain = make_model("small", IMAGES, device=cuda, precision=precision)
    recorded = make_model("small", IMAGES, device=cuda, precision=precision, several_threads=True)
    for seed in range(3):
        states = frames(count, seed, layout)
        ours, theirs = recorded.predict(states).values, plain.predict(states).values
        np.testing.assert_allclose(ours, theirs, rtol=2e-2 if precision == "bf16" else 1e-3, atol=1e-2)
    assert recorded.refusal() is None
    with recorded._order.predicting():
        assert (recorded._recordings.find(count) is not None) == (count <= 512)


def test_a_replay_sees_the_weights_of_the_last_update():
    model = make_model("small", IMAGES, device=torch.device("cuda"), several_threads=True)
    states = frames(8)
    before = model.predict(states).values
    for _ in range(20):
        model.update(make_batch(64, IMAGES), 1e-2)
    after = model.predict(states).values
    plain = make_model("small", IMAGES, device=torch.device("cuda"))
    plain.network.load_state_dict(model.network.state_dict())
    np.testing.assert_allclose(after, plain.predict(states).values, rtol=1e-2, atol=1e-2)
    assert not np.allclose(before, after, atol=1e-3)


def test_a_forward_pass_that_cannot_be_recorded_is_made_plainly():
    def forward(states):
        return states.float().mean(dim=1, keepdim=True) + states.sum().item() * 0  # .item() waits for the device

    recordings = Recordings(forward, torch.device("cuda"))
    with torch.cuda.stream(torch.cuda.Stream()), torch.inference_mode():
        recordings.record(4, like=torch.zeros(4, 5))
    assert not recordings.wants(4)
    assert recordings.find(4) is None
    assert torch.ones(3, device="cuda").sum().item() == 3  # the device is as it was


def test_predictions_beside_updates_belong_to_one_version():
    """A weight that each update moves by one: V says the version, if steps and forward passes do not overlap."""
    model = make_model("mlp", (4,), device=torch.device("cuda"), several_threads=True)
    with model.changing(), torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
    bias = model.network.value[-1].bias

    class Counting(torch.optim.Optimizer):
        def __init__(self):
            super().__init__([bias], {})

        def step(self, closure=None):
            with torch.no_grad():
                for _ in range(64):  # as slow as a step of many parameters, and exact
                    bias.add_(1 / 64)

    model.optimiser = Counting()
    wrong, stop = [], threading.Event()

    def predict():
        while not stop.is_set():
            prediction = model.predict(torch.zeros(2, 4))
            if abs(prediction.values[0] - prediction.version) > 1e-2:
                wrong.append((prediction.values[0], prediction.version))

    threads = [threading.Thread(target=predict) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        model.update(make_batch(8), 0.0)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not wrong
    assert model.version == 200


def test_states_are_read_where_they_lie_in_a_slab():
    cuda = torch.device("cuda")
    model = make_model("small", IMAGES, device=cuda, several_threads=True)
    plain = make_model("small", IMAGES, device=cuda)
    plain.network.load_state_dict(model.network.state_dict())
    for _ in range(3):  # a slab may come to lie where another one was
        slabs = [Slab(SlabLayout(2, 5, envs, IMAGES, "uint8")) for envs in (4, 8)]
        for step in range(5):
            places = [Place(slab, 1, step) for slab in slabs]
            for place in places:
                place.arrays.observations[...] = frames(place.envs, step).numpy()
            for asked in (places[:1], places):
                assert model.reads_in_place(asked)
                np.testing.assert_allclose(
                    model.predict_in_place(asked).values,
                    plain.predict(torch.cat([frames(place.envs, step) for place in asked])).values,
                    rtol=1e-3,
                    atol=1e-2,
                )
        assert all(torch.from_numpy(slab.observations).is_pinned() for slab in slabs)
        del slabs, places, place, asked
        gc.collect()


def test_a_slab_that_cannot_be_pinned_leaves_the_device_as_it_was():
    model = make_model("small", IMAGES, device=torch.device("cuda"), several_threads=True)
    slab = Slab(SlabLayout(2, 5, 4, IMAGES, "uint8"))
    address, nbytes = slab.observations.ctypes.data, slab.observations.nbytes
    assert int(torch.cuda.cudart().cudaHostRegister(address, nbytes, 0)) == 0  # so that CUDA refuses the next time
    assert not model.reads_in_place([Place(slab, 0, 0)])
    assert torch.ones(3, device="cuda").sum().item() == 3
    torch.cuda.cudart().cudaHostUnregister(address)


def test_states_cross_once_and_are_trained_on_as_they_were_predicted_for():
    model = make_model("small", IMAGES, device=torch.device("cuda"), several_threads=True)
    slab = Slab(SlabLayout(2, 5, 4, IMAGES, "uint8"))
    slab.observations[...] = np.random.default_rng(0).integers(0, 256, slab.observations.shape, np.uint8)
    for step in range(5):
        model.predict_in_place([Place(slab, 1, step)])
    recalled = model.recall([Rollouts(slab, 1, lambda _: None)])
    assert recalled.is_cuda
    torch.cuda.synchronize()  # it was gathered in a stream of its own
    np.testing.assert_array_equal(recalled.cpu().numpy(), slab.observations[1].reshape(-1, *IMAGES))
