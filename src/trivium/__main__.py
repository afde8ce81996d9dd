"""The program `trivium`: ready for signals before anything large is imported."""

import sys


def main() -> int:
    """Run the command of this process's arguments; return its exit status."""
    from trivium.pipeline.cli import ends

    ends.settle_streams()
    ends.install()
    try:
        from trivium.pipeline.cli.main import main as run
    except KeyboardInterrupt as error:
        return ends.ended(error)
    return run()


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the working folder: what lies there is media, not modules
    sys.exit(main())
