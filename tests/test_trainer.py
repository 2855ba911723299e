"""The learner's two roles, called directly, with a list as the queue."""

import os
import socket
import threading

import numpy as np
import pytest
import torch

from ga3c.batches import Batcher
from ga3c.channels import NO_SEGMENT, ActorChannel, Request
from ga3c.metrics import Meters, UpdateFigures
from ga3c.model import Prediction
from ga3c.predictor import Predictor
from ga3c.queues import TrainingQueue
from ga3c.slabs import Place, Rollouts, Slab, SlabLayout, create_slab_memory
from ga3c.trainer import Trainer

LAYOUT = SlabLayout(segments=2, t_max=3, envs=2, observation_shape=(1,), observation_dtype="float32")
NEVER = threading.Event()


class ListQueue:
    """What a role sees of a queue."""

    def __init__(self, batches):
        self._batches = batches

    def batches(self, size, stop):
        yield from self._batches


class FakeModel:
    """Says V(s) = 10 * s and action = s; keeps what it is trained on."""

    def __init__(self):
        self.version = 7
        self.trained = []

    def host_buffer(self, shape, dtype, *, channels_last):
        return torch.zeros(shape, dtype=getattr(torch, dtype))

    def reads_in_place(self, places):
        return len(places) == 1

    def recall(self, rollouts):
        return None

    def predict_in_place(self, places):
        return self.predict(torch.cat([torch.from_numpy(place.arrays.observations) for place in places]), places)

    def predict(self, states, places):
        flat = states.numpy()[:, 0]
        return Prediction(flat.astype(np.int64), 10 * flat, self.version)

    def update(self, batch, learning_rate):
        self.trained.append((batch, learning_rate))
        return UpdateFigures(int(batch.live.sum()), 0.0, 0.0, 0.0, 0.0, learning_rate, {})


def make_channel(index=0):
    fd = create_slab_memory(LAYOUT)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = ActorChannel(index, ours, Slab(LAYOUT, fd))
    os.close(fd)
    return channel, theirs


def asking(channel, segment, step, completed=NO_SEGMENT):
    return Request(channel, Place(channel.slab, segment, step), completed, [])


def test_each_reply_belongs_to_the_state_that_was_asked_about():
    (first, end), (second, other_end) = make_channel(0), make_channel(1)
    first.slab.observations[1, 2] = [[1], [2]]
    second.slab.observations[0, 0] = [[3], [4]]
    first.slab.live[1, 2] = [True, False]
    second.slab.live[0, 0] = True
    requests = [asking(first, 1, 2), asking(second, 0, 0)]
    meters, rollouts = Meters(4), TrainingQueue()
    Predictor(ListQueue([requests]), rollouts, FakeModel(), meters, max_batch_size=8).run(NEVER)
    np.testing.assert_array_equal(first.slab.actions[1, 2], [1, 2])
    np.testing.assert_array_equal(second.slab.values[0, 0], [30, 40])
    assert first.slab.versions[1, 2] == 7
    assert end.recv(1) == other_end.recv(1) == b"a"
    assert (meters.env_steps, meters.frames) == (3, 12)  # the step that is not live is none
    assert rollouts.depth == 0


def test_the_next_rollouts_first_prediction_completes_the_last_one():
    channel, end = make_channel()
    channel.slab.observations[1, 0] = [[5], [6]]
    rollouts = TrainingQueue()
    rollouts.add_capacity(100)
    request = asking(channel, 1, 0, completed=0)
    Predictor(ListQueue([[request]]), rollouts, FakeModel(), Meters(1), max_batch_size=8).run(NEVER)
    np.testing.assert_array_equal(channel.slab.bootstrap_values[0], [50, 60])
    [waiting] = next(rollouts.batches(0, NEVER))
    assert waiting.samples == 6
    end.close()


@pytest.mark.parametrize("can", [True, False])
@pytest.mark.parametrize("actors", [1, 2])
def test_states_are_read_where_they_lie_if_the_device_can(actors, can):
    channels = [make_channel(i)[0] for i in range(actors)]
    for i, channel in enumerate(channels):
        channel.slab.observations[0, 0] = [[3 + i], [4 + i]]
    in_place = []

    class Looking(FakeModel):
        def predict_in_place(self, places):
            in_place.append([place.slab for place in places])
            return super().predict_in_place(places)

        def reads_in_place(self, places):
            return can

    requests = [asking(channel, 0, 0) for channel in channels]
    Predictor(ListQueue([requests]), TrainingQueue(), Looking(), Meters(1), max_batch_size=2).run(NEVER)
    assert in_place == ([[channel.slab for channel in channels]] if can else [])
    for i, channel in enumerate(channels):
        np.testing.assert_array_equal(channel.slab.actions[0, 0], [3 + i, 4 + i])


def test_a_batch_keeps_states_actions_and_returns_together():
    channels = [make_channel(i) for i in range(2)]
    for i, (channel, _) in enumerate(channels):
        slab = channel.slab
        steps, envs = np.meshgrid(np.arange(3), np.arange(2), indexing="ij")
        slab.observations[0, ..., 0] = 100 * i + 10 * steps + envs
        slab.actions[0] = 100 * i + 10 * steps + envs
        slab.rewards[0] = 100 * i + 10 * steps + envs
        slab.versions[0] = [i, i + 1, i + 2]
        slab.live[0] = True
        slab.live[0, 1, 1] = False
        slab.terminated[0] = True
    model = FakeModel()
    batch = [Rollouts(channel.slab, 0, channel.release) for channel, _ in channels]
    trainer = Trainer(
        ListQueue([batch]),
        Batcher(model, discount=0.5, trace_decay=1.0),
        model,
        Meters(1),
        lambda: 0.25,
        min_batch_size=0,
    )
    trainer.run(NEVER)
    [(trained, learning_rate)] = model.trained
    assert learning_rate == 0.25
    expected = np.array([0, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121])
    np.testing.assert_array_equal(trained.states.numpy()[:, 0], expected)
    np.testing.assert_array_equal(trained.actions.numpy(), expected)
    np.testing.assert_array_equal(trained.returns.numpy(), expected)  # each step is terminal: its own reward
    np.testing.assert_array_equal(trained.versions, [0, 0, 1, 1, 2, 2, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(trained.live.numpy(), [1, 1, 1, 0, 1, 1] * 2)


def test_segments_go_back_to_their_actors_before_the_update():
    channel, end = make_channel()
    end.setblocking(False)

    class Checking(FakeModel):
        def update(self, batch, learning_rate):
            assert end.recv(5)[:1] == b"f"
            return super().update(batch, learning_rate)

    model = Checking()
    queue = ListQueue([[Rollouts(channel.slab, 0, channel.release)]])
    batcher = Batcher(model, discount=0.9, trace_decay=1.0)
    Trainer(queue, batcher, model, Meters(1), lambda: 0.1, min_batch_size=0).run(NEVER)
    assert len(model.trained) == 1
