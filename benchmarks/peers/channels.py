"""Candidates for the index channel: one server, many actors; an actor asks with 13 bytes and waits for one.

Run by ``queues.py`` in an environment of its own: prints one JSON line about one candidate and one number of actors.

    python channels.py CANDIDATE ACTORS SECONDS KILLS

The server answers whatever waits, one round after the other, as a predictor does. Every actor counts its round trips
and keeps their times. Then actors are killed, each at a random instant, and it is seen whether the others go on.
"""

import json
import mmap
import multiprocessing
import os
import random
import resource
import select
import signal
import socket
import sys
import tempfile
import threading
import time

REQUEST, REPLY = b"\x01" * 13, b"\x01"
SAMPLES = 2000  # round trips that an actor remembers, the last
STOPPED_S = 0.5  # without a reply: an actor that is not killed has been held up
context = multiprocessing.get_context("fork")


class Sockets:
    """A SOCK_SEQPACKET pair an actor, and one epoll: what ga3c does."""

    def __init__(self, actors):
        self.pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(actors)]

    def serve(self):
        self.epoll = select.epoll()
        self.ours = {ours.fileno(): (index, ours) for index, (ours, _) in enumerate(self.pairs)}
        for fd in self.ours:
            self.epoll.register(fd, select.EPOLLIN)

    def receive(self):
        found = []
        for fd, _ in self.epoll.poll(0.1):
            index, ours = self.ours[fd]
            if ours.recv(64):
                found.append(index)
        return found

    def reply(self, index):
        self.pairs[index][0].send(REPLY)

    def act(self, index):
        self.end = self.pairs[index][1]

    def ask(self):
        self.end.send(REQUEST)
        self.end.recv(16)


class Pipes(Sockets):
    """Two pipes an actor, and one epoll."""

    def __init__(self, actors):
        self.requests = [os.pipe() for _ in range(actors)]
        self.replies = [os.pipe() for _ in range(actors)]

    def serve(self):
        self.epoll = select.epoll()
        self.ours = {read: index for index, (read, _) in enumerate(self.requests)}
        for fd in self.ours:
            self.epoll.register(fd, select.EPOLLIN)

    def receive(self):
        found = []
        for fd, _ in self.epoll.poll(0.1):
            if os.read(fd, len(REQUEST)):
                found.append(self.ours[fd])
        return found

    def reply(self, index):
        os.write(self.replies[index][1], REPLY)

    def act(self, index):
        self.write, self.read = self.requests[index][1], self.replies[index][0]

    def ask(self):
        os.write(self.write, REQUEST)
        os.read(self.read, 16)


class SimpleQueues:
    """multiprocessing.SimpleQueue: one that all actors write to, one an actor for replies."""

    def __init__(self, actors):
        self.requests = context.SimpleQueue()
        self.replies = [context.SimpleQueue() for _ in range(actors)]

    def serve(self):
        pass

    def receive(self):
        found = []
        if self.requests._reader.poll(0.1):
            found.append(self.requests.get()[0])
            while not self.requests.empty():
                found.append(self.requests.get()[0])
        return found

    def reply(self, index):
        self.replies[index].put(REPLY)

    def act(self, index):
        self.index = index

    def ask(self):
        self.requests.put((self.index, REQUEST))
        self.replies[self.index].get()


class FasterFifos(SimpleQueues):
    """faster-fifo's Queue in the places of SimpleQueue."""

    def __init__(self, actors):
        import faster_fifo

        self.requests = faster_fifo.Queue(1 << 20)
        self.replies = [faster_fifo.Queue(1 << 12) for _ in range(actors)]

    def receive(self):
        from queue import Empty

        try:
            return [index for index, _ in self.requests.get_many(timeout=0.1)]
        except Empty:
            return []

    def ask(self):
        self.requests.put((self.index, REQUEST))
        self.replies[self.index].get(timeout=3600.0)


class Zmq:
    """pyzmq: a ROUTER, and a DEALER an actor, over ipc."""

    def __init__(self, actors):
        import zmq

        self.zmq = zmq  # here, and not in each actor: an import takes longer than what is measured
        self.address = f"ipc://{tempfile.mkdtemp()}/router"

    def serve(self):
        zmq = self.zmq
        self.router = zmq.Context().socket(zmq.ROUTER)
        self.router.bind(self.address)

    def receive(self):
        found = []
        if self.router.poll(100):
            while True:
                try:
                    found.append(int.from_bytes(self.router.recv_multipart(self.zmq.NOBLOCK)[0][1:], "little"))
                except self.zmq.Again:
                    break
        return found

    def reply(self, index):
        self.router.send_multipart([b"a" + index.to_bytes(2, "little"), REPLY])

    def act(self, index):
        zmq = self.zmq
        self.dealer = zmq.Context().socket(zmq.DEALER)
        self.dealer.setsockopt(zmq.IDENTITY, b"a" + index.to_bytes(2, "little"))
        self.dealer.connect(self.address)

    def ask(self):
        self.dealer.send(REQUEST)
        self.dealer.recv()


class Slots:
    """A slot of shared memory an actor; an eventfd wakes the server for all, and one an actor wakes that actor."""

    def __init__(self, actors):
        self.actors = actors
        self.memory = mmap.mmap(-1, 64 * actors)
        self.server_fd = os.eventfd(0)
        self.fds = [os.eventfd(0) for _ in range(actors)]

    def serve(self):
        self.poll = select.poll()
        self.poll.register(self.server_fd, select.POLLIN)

    def receive(self):
        if not self.poll.poll(100):
            return []
        os.eventfd_read(self.server_fd)
        found = [index for index in range(self.actors) if self.memory[64 * index]]
        for index in found:
            self.memory[64 * index] = 0
        return found

    def reply(self, index):
        os.eventfd_write(self.fds[index], 1)

    def act(self, index):
        self.index = index

    def ask(self):
        self.memory[64 * self.index + 1 : 64 * self.index + 14] = REQUEST
        self.memory[64 * self.index] = 1
        os.eventfd_write(self.server_fd, 1)
        os.eventfd_read(self.fds[self.index])


CANDIDATES = {
    "sockets": Sockets, "pipes": Pipes, "simple-queue": SimpleQueues, "faster-fifo": FasterFifos, "zmq": Zmq,
    "slots": Slots,
}  # fmt: skip


def actor(channel, index, counts, times, parent):
    """Asks again and again; ``times`` are nanoseconds of its last round trips."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel.act(index)
    while os.getppid() == parent:
        began = time.monotonic_ns()
        channel.ask()
        times[index * SAMPLES + counts[index] % SAMPLES] = time.monotonic_ns() - began
        counts[index] += 1


def main(name, actors, seconds, kills):
    channel = CANDIDATES[name](actors)
    counts = context.Array("q", actors, lock=False)
    times = context.Array("q", actors * SAMPLES, lock=False)
    processes = [
        context.Process(target=actor, args=(channel, index, counts, times, os.getpid()), daemon=True)
        for index in range(actors)
    ]
    for process in processes:
        process.start()
    channel.serve()
    thread = threading.Thread(target=serve, args=(channel,), daemon=True)
    thread.start()
    time.sleep(1.0)
    before, began, cpu = sum(counts), time.monotonic(), cpu_s(processes)
    time.sleep(seconds)
    messages, took = sum(counts) - before, time.monotonic() - began
    cpu = cpu_s(processes) - cpu
    seen = sorted(t for t in times if t)
    result = {
        "candidate": name,
        "actors": actors,
        "round_trips_per_s": round(messages / took, 1),
        "p50_us": round(seen[len(seen) // 2] / 1e3, 2),
        "p99_us": round(seen[int(0.99 * len(seen))] / 1e3, 2),
        "cpu_us_a_round_trip": round(1e6 * cpu / messages, 2),
        **killed(processes, counts, kills),
    }
    for process in processes:  # which may be held up
        process.kill()
    print(json.dumps(result), flush=True)
    os._exit(0)


def serve(channel):
    while True:
        for index in channel.receive():
            channel.reply(index)


def killed(processes, counts, kills):
    """Kills actors at random instants; says how often the others were held up after one."""
    draw = random.Random(1)
    alive = list(range(len(processes)))
    held_up = done = 0
    while done < kills and len(alive) > 2:
        time.sleep(draw.uniform(0.01, 0.05))
        victim = alive.pop(draw.randrange(len(alive)))
        os.kill(processes[victim].pid, signal.SIGKILL)
        done += 1
        processes[victim].join()
        before = [counts[index] for index in alive]
        time.sleep(STOPPED_S)
        if any(counts[index] == count for index, count in zip(alive, before, strict=True)):
            held_up += 1
            break  # nobody will come back
    return {"kills": done, "held_up_after_kill": held_up}


def cpu_s(processes):
    """Of this process and its actors."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime
    for process in processes:
        with open(f"/proc/{process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
