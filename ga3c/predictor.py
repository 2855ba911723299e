"""The predictor: a thread that serves actors' requests in batches."""

import threading
import time

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ga3c.channels import NO_SEGMENT, Request
from ga3c.metrics import Meters
from ga3c.model import Model
from ga3c.queues import PredictionQueue, TrainingQueue
from ga3c.slabs import Place, Rollouts


class Predictor:
    """Takes every request that waits, predicts for all at once, answers, and passes complete rollouts on."""

    def __init__(
        self,
        requests: PredictionQueue,
        rollouts: TrainingQueue,
        model: Model,
        meters: Meters,
        *,
        max_batch_size: int,
    ) -> None:
        """``max_batch_size`` is in states; a single request may be larger."""
        self._requests = requests
        self._rollouts = rollouts
        self._model = model
        self._meters = meters
        self._max_batch_size = max_batch_size
        self._states: Tensor | None = None  # grown when a batch is larger

    def run(self, stop: threading.Event) -> None:
        """Predicts until the queue closes or ``stop`` is set."""
        idle_since = time.perf_counter()
        for batch in self._requests.batches(self._max_batch_size, stop):
            began = time.perf_counter()
            places = [request.place for request in batch]
            states = None if self._model.reads_in_place(places) else self._gather(places)
            copied = time.perf_counter()
            prediction = self._model.predict_in_place(places) if states is None else self._model.predict(states, places)
            predicted = time.perf_counter()
            live = 0
            offset = 0
            for request in batch:
                rows = slice(offset, offset + request.place.envs)
                offset = rows.stop
                live += self._answer(request, prediction.actions[rows], prediction.values[rows], prediction.version)
            now = time.perf_counter()
            self._meters.predicted(live, offset, [e for r in batch for e in r.episodes])
            self._meters.spent(
                "predictor",
                waiting=began - idle_since,
                copying=copied - began + now - predicted,
                inference=predicted - copied,
            )
            idle_since = now

    def _gather(self, places: list[Place]) -> Tensor:
        """A copy of the states [B, ...] that are asked about, which the next batch overwrites."""
        size = sum(place.envs for place in places)
        if self._states is None or len(self._states) < size:
            layout = places[0].slab.layout
            shape = (max(size, self._max_batch_size), *layout.observation_shape)
            self._states = self._model.host_buffer(shape, layout.observation_dtype, channels_last=layout.channels_last)
        gathered = self._states.numpy()
        offset = 0
        for place in places:
            gathered[offset : offset + place.envs] = place.arrays.observations
            offset += place.envs
        return self._states[:size]

    def _answer(self, request: Request, actions: NDArray[np.int64], values: NDArray[np.float32], version: int) -> int:
        """Writes the reply, wakes the actor, and returns how many of its environments took a live step."""
        slab, step = request.place.slab, request.place.arrays
        step.actions[...] = actions
        step.values[...] = values
        slab.versions[request.place.segment, request.place.step] = version
        live = step.live_steps
        if request.completed != NO_SEGMENT:
            slab.bootstrap_values[request.completed] = values
            self._rollouts.put(Rollouts(slab, request.completed, request.channel.release))
            request.channel.unfinished.steps = 0
        request.channel.unfinished.steps += live
        request.channel.reply()
        return live
