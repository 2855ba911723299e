"""``ga3c tune``: measures which counts and batches are fastest on this machine, and writes them to a preset.

``search`` decides what is tried and how often, ``trials`` measures it, ``report`` shows it. A trial trains for seconds
in this process: the actors of a setting are made once, and wait while another is measured.
"""

from ga3c.tune.command import run_tune

__all__ = ["run_tune"]
