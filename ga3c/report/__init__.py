"""``ga3c report``: runs and comparisons as one HTML file that needs nothing but a browser.

``runs`` reads what runs left; ``charts`` and ``tables`` make the parts of the page from it, ``comparison`` those of a
comparison's record; ``style`` says how charts look, ``page`` puts the parts into ``report.html.j2``.
"""

from ga3c.report.command import run_report

__all__ = ["run_report"]
