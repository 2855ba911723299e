"""``python -m ga3c`` is ``ga3c``."""

from ga3c.cli import main

if __name__ == "__main__":
    main()
