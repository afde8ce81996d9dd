"""Standard output and standard error of a program: always there, and able to show any character somehow."""

import contextlib
import io
import os
import sys


def settle() -> None:
    """Make them so; to be called once, before anything is opened or printed.

    A stream that was closed (``>&-``) becomes one that goes nowhere: else the next file to be opened would get its
    number, and what a library prints would end up in a database.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # of a terminal or pipe that is not UTF-8


def drop_output() -> None:
    """Give up standard output, whose reader has gone or whose disk is full: Python would complain of it at the end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
