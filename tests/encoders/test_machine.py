"""What the system tells of the processor's time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trivium.encoders.machine import cpu_seconds_of, usable_cores

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


def test_cores() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@needs_proc
def test_time_of_this_process() -> None:
    """As the other clock has it, which counts finer than the kernel's ticks of 10 ms."""
    assert cpu_seconds_of(os.getpid()) == pytest.approx(time.process_time(), abs=0.05)


@needs_proc
def test_a_process_of_any_name() -> None:
    script = """if True:
        import time
        with open("/proc/self/comm", "w") as name:
            name.write(") S 1 (2 3")
        while time.process_time() < 0.2:
            pass
        print(flush=True)
        input()"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert cpu_seconds_of(child.pid) == pytest.approx(0.2, abs=0.1)
        child.communicate(b"\n")
    assert cpu_seconds_of(child.pid) is None
