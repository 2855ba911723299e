import os
import resource
import signal

from ga3c.rlimits import provide_descriptors
from ga3c.signals import Signals, asking


def test_a_signal_and_the_word_to_go_on_can_come_together():
    """As ``timeout`` sends them: Python calls both handlers, one after the other, between two instructions."""
    signals, both = Signals(), {signal.SIGINT, signal.SIGCONT}
    with signals.handled():
        signal.pthread_sigmask(signal.SIG_BLOCK, both)
        for number in both:
            os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
        assert signals.wait(20)
        assert signals.exitcode == 128 + signal.SIGINT
        assert signals.was_continued()


def test_a_terminal_that_goes_is_heard_unless_nohup_has_it_ignored():
    assert signal.SIGHUP in asking()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert asking() == [signal.SIGINT, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_is_waited_for_however_many_descriptors_are_open():
    """Each actor has some, so that with 500 the number of this one is beyond what ``select`` takes."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    provide_descriptors(1000)
    descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        signals = Signals()
        with signals.handled():
            assert not signals.wait(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.wait(20)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
