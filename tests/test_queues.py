"""The contracts of both queues and of the channel between an actor and the learner."""

import dataclasses
import os
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from ga3c.channels import NO_SEGMENT, ActorChannel, ActorPort, ChannelClosed, report_error
from ga3c.envs import EnvError, Episode
from ga3c.queues import PredictionQueue, TrainingQueue
from ga3c.slabs import Rollouts, Slab, SlabLayout, create_slab_memory

LAYOUT = SlabLayout(segments=2, t_max=3, envs=4, observation_shape=(2,), observation_dtype="float32")
NEVER = threading.Event()


def make_pair(index=0, layout=LAYOUT):
    """An actor's port and the learner's channel on one slab."""
    fd = create_slab_memory(layout)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = ActorChannel(index, ours, Slab(layout, fd))
    os.close(fd)
    return ActorPort(theirs, layout.segments), channel, theirs


@contextmanager
def prediction_queue(actors=1, layout=LAYOUT):
    gone, errors = [], []
    queue = PredictionQueue(gone.append, lambda channel, error: errors.append((channel.index, error)))
    pairs = [make_pair(i, layout) for i in range(actors)]
    for _, channel, _ in pairs:
        queue.add(channel)
    try:
        yield queue, pairs, gone, errors
    finally:
        queue.close()
        for _, _, end in pairs:
            end.close()


def in_thread(work):
    """Runs ``work`` in a thread and returns a function that waits for its result."""
    box = []

    def body():
        try:
            box.append(work())
        except BaseException as error:
            box.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()

    def result(timeout=5):
        thread.join(timeout)
        assert not thread.is_alive(), "still waiting"
        return box[0]

    return result


def test_a_request_arrives_with_its_step_and_episodes():
    with prediction_queue() as (queue, [(port, channel, _)], _, _):
        port.request_actions(1, 2, NO_SEGMENT, [Episode(-21.0, 800), Episode(0.5, 3)])
        [request] = next(queue.batches(64, NEVER))
        assert (request.channel, request.completed) == (channel, NO_SEGMENT)
        assert request.episodes == [Episode(-21.0, 800), Episode(0.5, 3)]
        place = request.place
        assert (place.slab, place.segment, place.step, place.envs) == (channel.slab, 1, 2, LAYOUT.envs)
        assert place.arrays is channel.slab.steps[1][2]


def test_a_batch_takes_every_request_that_waits():
    with prediction_queue(actors=5) as (queue, pairs, _, _):
        for port, _, _ in pairs[:3]:
            port.request_actions(0, 0, NO_SEGMENT, [])
        assert queue.depth == 3
        batch = next(queue.batches(64, NEVER))
        assert sorted(r.channel.index for r in batch) == [0, 1, 2]
        assert queue.depth == 0


def test_a_batch_is_cut_at_the_largest_size_and_the_rest_comes_next():
    with prediction_queue(actors=5) as (queue, pairs, _, _):
        for port, _, _ in pairs:
            port.request_actions(0, 0, NO_SEGMENT, [])
        batches = queue.batches(2 * LAYOUT.envs, NEVER)
        served = [[r.channel.index for r in next(batches)] for _ in range(3)]
        assert [len(b) for b in served] == [2, 2, 1]
        assert sorted(index for batch in served for index in batch) == [0, 1, 2, 3, 4]


def test_a_request_larger_than_the_largest_batch_is_served_alone():
    with prediction_queue(actors=2) as (queue, pairs, _, _):
        for port, _, _ in pairs:
            port.request_actions(0, 0, NO_SEGMENT, [])
        assert [len(next(queue.batches(1, NEVER))) for _ in range(2)] == [1, 1]


def test_a_reply_wakes_the_actor_that_asked_and_no_other():
    with prediction_queue(actors=2) as (queue, [(first, _, _), (second, _, _)], _, _):
        first.request_actions(0, 0, NO_SEGMENT, [])
        second.request_actions(0, 0, NO_SEGMENT, [])
        woken, waiting = in_thread(first.wait_for_actions), in_thread(second.wait_for_actions)
        for request in next(queue.batches(64, NEVER)):
            if request.channel.index == 0:
                request.channel.reply()
        assert woken() is None
        with pytest.raises(AssertionError, match="still waiting"):
            waiting(timeout=0.2)
        queue.close()
        assert isinstance(waiting(), ChannelClosed)


def test_each_request_is_served_once_by_many_predictors():
    with prediction_queue(actors=8, layout=dataclasses.replace(LAYOUT, t_max=50)) as (queue, pairs, _, _):
        served, lock = [], threading.Lock()

        def predict():
            for batch in queue.batches(8, NEVER):
                with lock:
                    served.extend((r.channel.index, r.place.step) for r in batch)
                for r in batch:
                    r.channel.reply()

        predictors = [in_thread(predict) for _ in range(4)]

        def act(port):
            for step in range(50):
                port.request_actions(0, step, NO_SEGMENT, [])
                port.wait_for_actions()

        for done in [in_thread(lambda port=port: act(port)) for port, _, _ in pairs]:
            assert done(timeout=20) is None
        queue.close()
        for done in predictors:
            assert done() is None
        assert sorted(served) == [(i, step) for i in range(8) for step in range(50)]


def test_close_ends_iterators_and_wakes_actors_and_may_be_called_twice():
    with prediction_queue() as (queue, [(port, _, _)], _, _):
        iterating = in_thread(lambda: list(queue.batches(8, NEVER)))
        waiting = in_thread(port.wait_for_actions)
        queue.close()
        queue.close()
        assert iterating() == []
        assert isinstance(waiting(), ChannelClosed)


def test_an_iterator_ends_when_it_is_asked_to_stop():
    with prediction_queue() as (queue, _, _, _):
        stop = threading.Event()
        iterating = in_thread(lambda: list(queue.batches(8, stop)))
        stop.set()
        assert iterating() == []


def test_an_actor_that_closes_its_end_is_reported_once_and_the_others_go_on():
    with prediction_queue(actors=2) as (queue, [(_, first, end), (second, _, _)], gone, _):
        end.close()
        second.request_actions(0, 0, NO_SEGMENT, [])
        batches = queue.batches(8, NEVER)
        assert [r.channel.index for r in next(batches)] == [1]
        second.request_actions(0, 1, NO_SEGMENT, [])
        next(batches)
        assert gone == [first]
        assert queue.capacity == 1


def test_a_patient_predictor_takes_the_requests_that_come_a_moment_later():
    for patience_s, together in ((0.3, [0, 1]), (0.0, [0])):
        with prediction_queue(actors=4) as (queue, actors, _, _):
            queue._patience_s = patience_s
            actors[0][0].request_actions(0, 0, NO_SEGMENT, [])
            later = threading.Timer(0.1, lambda: actors[1][0].request_actions(0, 0, NO_SEGMENT, []))
            later.start()
            batch = next(queue.batches(100, NEVER))
            later.join()
            assert sorted(r.channel.index for r in batch) == together


def test_an_actors_traceback_reaches_the_learner():
    with prediction_queue(actors=2) as (queue, [(failing, _, _), (other, _, _)], _, errors):
        report_error(failing._socket, FileNotFoundError("no ROM"))
        other.request_actions(0, 0, NO_SEGMENT, [])
        next(queue.batches(8, NEVER))
        [(index, error)] = errors
        assert (index, str(error), error.in_environment) == (0, "FileNotFoundError: no ROM\n", False)


def test_what_an_environment_did_is_told_from_what_an_actor_did():
    with prediction_queue(actors=2) as (queue, [(failing, _, _), (other, _, _)], _, errors):
        report_error(failing._socket, EnvError("environment 3 is on fire"))
        other.request_actions(0, 0, NO_SEGMENT, [])
        next(queue.batches(8, NEVER))
        [(index, error)] = errors
        assert (index, error.in_environment) == (0, True)
        assert str(error).startswith("environment 3 is on fire\n")


def test_it_is_an_actors_turn_after_a_reply_and_not_while_it_waits_for_a_segment():
    with prediction_queue() as (queue, [(port, channel, _)], _, _):
        assert not channel.awaited, "others make their environments first"
        channel.slab.begun[0] = True
        assert channel.awaited  # it has yet to start

        def play(segment, step, completed=NO_SEGMENT):
            port.request_actions(segment, step, completed, [])
            assert not channel.awaited, "its request waits in the socket"
            next(queue.batches(8, NEVER))
            assert not channel.awaited, "a predictor has its request"
            channel.reply()

        for segment, completed in ((0, NO_SEGMENT), (1, 0)):
            for step in range(LAYOUT.t_max):
                play(segment, step, completed if step == 0 else NO_SEGMENT)
                full = segment == 1 and step == LAYOUT.t_max - 1
                assert channel.awaited is not full, (segment, step)
        channel.release(0)
        assert channel.awaited


def test_replying_to_an_actor_that_is_gone_does_nothing():
    with prediction_queue() as (_, [(_, channel, end)], _, _):
        end.close()
        channel.reply()
        channel.release(0)
        channel.stop()


def test_an_actor_waits_for_a_segment_until_a_trainer_releases_one():
    with prediction_queue() as (_, [(port, channel, _)], _, _):
        assert [port.acquire_segment(), port.acquire_segment()] == [0, 1]
        waiting = in_thread(port.acquire_segment)
        with pytest.raises(AssertionError, match="still waiting"):
            waiting(timeout=0.2)
        channel.release(1)
        assert waiting() == 1


def test_a_release_that_arrives_while_the_actor_waits_for_actions_is_kept():
    with prediction_queue() as (_, [(port, channel, _)], _, _):
        port.acquire_segment(), port.acquire_segment()
        channel.release(0)
        channel.reply()
        port.wait_for_actions()
        assert port.acquire_segment() == 0


def test_close_wakes_an_actor_that_waits_for_a_segment():
    with prediction_queue() as (queue, [(port, _, _)], _, _):
        port.acquire_segment(), port.acquire_segment()
        waiting = in_thread(port.acquire_segment)
        queue.close()
        assert isinstance(waiting(), ChannelClosed)


def test_an_actor_that_is_asked_to_leave_still_gets_its_answer():
    with prediction_queue() as (_, [(port, channel, _)], _, _):
        waiting = in_thread(port.wait_for_actions)
        channel.stop()
        with pytest.raises(AssertionError, match="still waiting"):
            waiting(timeout=0.2)
        assert port.leaving
        channel.reply()
        assert waiting() is None


def rollouts(index=0):
    """A segment of 3 x 4 samples, and the actor's port to see it released."""
    port, channel, end = make_pair(index)
    return Rollouts(channel.slab, 0, channel.release), port, end


@contextmanager
def training_queue(segments):
    queue = TrainingQueue()
    queue.add_capacity(1000)
    made = [rollouts(i) for i in range(segments)]
    try:
        yield queue, [r for r, _, _ in made]
    finally:
        queue.close()
        for r, _, end in made:
            r._release.__self__.close()
            end.close()


def test_a_training_batch_waits_until_it_is_large_enough():
    with training_queue(3) as (queue, [first, second, third]):
        taking = in_thread(lambda: next(queue.batches(24, NEVER)))
        queue.put(first)
        with pytest.raises(AssertionError, match="still waiting"):
            taking(timeout=0.2)
        queue.put(second)
        assert taking() == [first, second]
        queue.put(third)
        assert queue.depth == 12


def test_a_training_batch_from_0_takes_one_rollout_at_once():
    with training_queue(2) as (queue, [first, second]):
        queue.put(first)
        queue.put(second)
        assert next(queue.batches(0, NEVER)) == [first]


def test_a_batch_that_the_actors_cannot_fill_any_more_is_taken_as_it_is():
    with training_queue(1) as (queue, [first]):
        queue.put(first)
        taking = in_thread(lambda: next(queue.batches(24, NEVER)))
        queue.add_capacity(12 - 1000)  # all but one actor leave
        assert taking() == [first]


def test_two_trainers_do_not_share_out_a_batch_between_them():
    with training_queue(4) as (queue, segments):
        taking = [in_thread(lambda: next(queue.batches(24, NEVER))) for _ in range(2)]
        for r in segments:
            queue.put(r)
            time.sleep(0.02)
        assert sorted(len(batch()) for batch in taking) == [2, 2]


def test_closing_the_training_queue_ends_iterators_and_nobody_takes_what_comes_later():
    with training_queue(1) as (queue, [first]):
        iterating = in_thread(lambda: list(queue.batches(24, NEVER)))
        queue.close()
        queue.close()
        queue.put(first)
        assert iterating() == []
        assert list(queue.batches(1, NEVER)) == []
        assert queue.live_steps() == int(first.field("live").sum())


def test_a_trainer_that_is_asked_to_stop_leaves_what_waits_in_the_queue():
    with training_queue(1) as (queue, [first]):
        stop = threading.Event()
        queue.put(first)
        iterating = in_thread(lambda: list(queue.batches(24, stop)))
        stop.set()
        assert iterating() == []
        assert queue.depth == 12


def test_rollouts_are_views_of_the_slab_and_go_back_to_their_actor():
    r, port, end = rollouts()
    port.acquire_segment(), port.acquire_segment()
    r.slab.rewards[0, 1, 2] = 7.0
    assert r.field("rewards")[1, 2] == 7.0
    assert np.shares_memory(r.field("observations"), r.slab.observations)
    assert (r.samples, r.count) == (12, 4)
    r.release()
    assert port.acquire_segment() == 0
    r._release.__self__.close()
    end.close()


def test_an_actors_last_words_are_heard_though_a_message_of_ours_was_not_read():
    with prediction_queue(actors=2) as (queue, [(_, channel, end), (other, _, _)], gone, errors):
        channel.release(0)
        report_error(end, RuntimeError("boom"))
        end.close()
        other.request_actions(0, 0, NO_SEGMENT, [])
        next(queue.batches(8, NEVER))
        assert [(index, str(error)) for index, error in errors] == [(0, "RuntimeError: boom\n")]
        assert gone == []


def test_sending_on_a_closed_channel_does_nothing():
    with prediction_queue() as (queue, [(_, channel, _)], _, _):
        queue.close()
        channel.reply()
        channel.release(1)
