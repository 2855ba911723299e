import os
import signal

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
