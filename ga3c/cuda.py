"""What a CUDA device needs when several threads use one model: the order of their work, and recorded forward passes.

A call returns before the device has done what it asks for, and streams run beside each other. What the host's locks
keep apart (see ``model``) is kept apart on the device by events: they are recorded in one stream and waited for in
another, by the device, while the host goes on.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

_NOTHING = nullcontext()
_STREAMS = 32  # of one priority, that torch has for a device


class InOrder:
    """A device on which things happen in the order in which they are asked for: a CPU, or one stream. Orders nothing.

    Each method is a context; the names say what is asked for inside.
    """

    def predicting(self) -> AbstractContextManager[None]:
        """A thread's prediction, from the copy of its states to that of its result."""
        return _NOTHING

    def reading(self) -> AbstractContextManager[None]:
        """The part of a prediction that reads the weights."""
        return _NOTHING

    def gathering(self) -> AbstractContextManager[None]:
        """A trainer's copy of resident states, which actors will overwrite."""
        return _NOTHING

    def updating(self) -> AbstractContextManager[None]:
        """An update, from the copy of its batch to its step."""
        return _NOTHING

    def writing(self) -> AbstractContextManager[None]:
        """The part of an update that writes the weights."""
        return _NOTHING

    def settle(self) -> None:
        """Waits until the last step that was asked for is done."""

    def finish(self) -> None:
        """Waits until all that was asked for is done; nobody may be recording."""


class Streams(InOrder):
    """One stream a predictor or gathering trainer, and one for all updates, which exclude each other anyway."""

    def __init__(self, device: torch.device) -> None:
        """What the device has been asked for before is done when this returns."""
        self._device = device
        self._updates = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._streams: dict[threading.Thread, torch.cuda.Stream] = {}
        self._written = torch.cuda.Event()  # type: ignore[no-untyped-call]  # the weights, last
        self._lock = threading.Lock()  # guards the dictionaries; threads that are gone leave an event that is past
        self._read: dict[int, torch.cuda.Event] = {}  # the weights, last, by thread
        self._gathered: dict[int, torch.cuda.Event] = {}  # resident states, last, by thread
        self.finish()

    def _own(self) -> torch.cuda.Stream:
        """The thread's and nobody else's: that of a thread that is gone goes to the next one.

        Raises:
          RuntimeError: more threads than torch has streams for.
        """
        thread = threading.current_thread()
        with self._lock:
            if thread not in self._streams:
                gone = next((other for other in self._streams if not other.is_alive()), None)
                self._streams[thread] = self._unused() if gone is None else self._streams.pop(gone)
            return self._streams[thread]

    def _unused(self) -> torch.cuda.Stream:
        """A stream that no other thread has; the caller holds the lock. torch gives its few out in turn."""
        used = {stream.cuda_stream for stream in (self._updates, *self._streams.values())}
        for _ in range(_STREAMS):
            stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            if stream.cuda_stream not in used:
                return stream
        raise RuntimeError(f"{len(used)} streams are in use; torch has {_STREAMS} for a device")

    def _note(self, events: dict[int, torch.cuda.Event], stream: torch.cuda.Stream) -> None:
        with self._lock:
            if threading.get_ident() not in events:
                events[threading.get_ident()] = torch.cuda.Event()  # type: ignore[no-untyped-call]
            events[threading.get_ident()].record(stream)

    def _wait(self, stream: torch.cuda.Stream, events: dict[int, torch.cuda.Event]) -> None:
        with self._lock:
            for event in events.values():
                stream.wait_event(event)

    @contextmanager
    def predicting(self) -> Iterator[None]:
        """In the thread's stream; after copies of what it will overwrite."""
        stream = self._own()
        self._wait(stream, self._gathered)
        with torch.cuda.stream(stream):
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """After the last step; the next one waits for it."""
        stream = self._own()
        stream.wait_event(self._written)
        try:
            yield
        finally:
            self._note(self._read, stream)

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """In the thread's stream. What it copies is there: predictors wait for their streams before they answer."""
        stream = self._own()
        with torch.cuda.stream(stream):
            yield
        self._note(self._gathered, stream)

    @contextmanager
    def updating(self) -> Iterator[None]:
        """In the stream of updates; after the thread's own copies."""
        self._updates.wait_stream(self._own())
        with torch.cuda.stream(self._updates):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """After the forward passes that read what it overwrites; later ones wait for it."""
        self._wait(self._updates, self._read)
        try:
            yield
        finally:
            self._written.record(self._updates)

    def settle(self) -> None:
        """See ``InOrder``. Others may be recording, during which CUDA lets nobody wait for the whole device."""
        self._written.synchronize()

    def finish(self) -> None:
        """See ``InOrder``."""
        torch.cuda.synchronize(self._device)


class Recording:
    """A forward pass for one batch size, replayed with one launch. One thread's, with buffers of its own."""

    def __init__(self, forward: Callable[[Tensor], Tensor], states: Tensor) -> None:
        """Records ``forward`` on ``states`` [B, ...] of the device, which become its input.

        Raises:
          RuntimeError: it cannot be recorded, or does not return the same when it is replayed.
        """
        self._states = states
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        for _ in range(3):  # libraries choose algorithms and make workspaces at the first calls
            expected = forward(states)
        # Other threads go on meanwhile: their calls are no part of it, and no mistake.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._outputs = forward(states)
        self._graph.replay()
        if not torch.allclose(self._outputs, expected, rtol=1e-3, atol=1e-3):
            raise RuntimeError("a replayed forward pass differs from the one that was recorded")

    def replay(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """For states [n, ...] of the host, B at most in all: outputs and states on the device, until the next call."""
        count = 0
        for part in parts:
            self._states[count : count + len(part)].copy_(part, non_blocking=True)
            count += len(part)
        self._graph.replay()
        return self._outputs[:count], self._states[:count]


class Recordings:
    """Forward passes recorded for a few batch sizes, once a stream; a batch is padded to the next of them.

    A thread has a stream to itself, and hands it on when it ends: what was recorded in it goes with it.

    They read weights where they lie, so an update in place needs no new ones. A forward pass that cannot be recorded
    (a network of the user's own may do anything) is not asked for again.
    """

    SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512)

    def __init__(self, forward: Callable[[Tensor], Tensor], device: torch.device) -> None:
        """``forward`` maps states [B, ...] on the device to one tensor [B, ...]."""
        self._forward = forward
        self._device = device
        self._streams: dict[int, dict[int, Recording]] = {}  # by stream and batch size
        self._possible = True
        self._refusal: str | None = None

    def wants(self, count: int) -> bool:
        """Whether ``count`` states should be recorded for, which has not been done in this stream."""
        return self._possible and self._size(count) is not None and self.find(count) is None

    def find(self, count: int) -> Recording | None:
        """The current stream's recording that ``count`` states fit into."""
        size = self._size(count)
        return None if size is None else self._own().get(size)

    def record(self, count: int, like: Tensor) -> None:
        """Records for ``count`` states as those of ``like`` [n, ...]; nobody may write the weights, or record, then.

        Does nothing where recording has failed, as it may have in another thread since this one asked.
        """
        if not self._possible:
            return
        size = self._size(count)
        assert size is not None
        states = torch.zeros((size, *like.shape[1:]), dtype=like.dtype, device=self._device)
        if like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last):
            states = states.contiguous(memory_format=torch.channels_last)
        try:
            self._own()[size] = Recording(self._forward, states)
        except RuntimeError as error:
            self._possible = False
            self._refusal = str(error).partition("\n")[0]

    def take_refusal(self) -> str | None:
        """Why nothing is recorded any more, the first time that it is asked after that."""
        refusal, self._refusal = self._refusal, None
        return refusal

    def _size(self, count: int) -> int | None:
        return next((size for size in self.SIZES if size >= count), None)

    def _own(self) -> dict[int, Recording]:
        return self._streams.setdefault(torch.cuda.current_stream(self._device).cuda_stream, {})
