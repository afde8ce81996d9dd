"""The program `trivium`: ready for signals before anything large is imported."""

import sys

from trivium.pipeline import interrupts, streams


def main() -> int:
    """Run the command of this process's arguments; return its exit status."""
    streams.settle()
    interrupts.install()
    try:
        from trivium.pipeline.cli import main as run
    except KeyboardInterrupt as error:
        return interrupts.ended(error)
    return run()


if __name__ == "__main__":
    sys.exit(main())
