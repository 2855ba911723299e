"""``ga3c compare``: the same training in several modes and networks, measured in turn, and drawn.

``plan`` orders the cells, ``grid`` runs them, ``cells`` knows what one is, ``record`` keeps them, ``figures`` computes,
``report`` and the charts show. Nothing here knows how a mode works: a cell is a run of ``ga3c train``.
"""


def run_compare(arguments: list[str]) -> int:
    """See ``command.run_compare``, which loads torch; who reads a record does without."""
    from ga3c.compare import command

    return command.run_compare(arguments)


__all__ = ["run_compare"]
