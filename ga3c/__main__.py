"""``python -m ga3c`` and the ``ga3c`` command."""

import sys


def main() -> None:
    """Runs the command line; Ctrl-C before a run has begun ends it without a traceback."""
    try:
        from ga3c.cli import run  # here, since it takes seconds, in which Ctrl-C may come

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
