"""Guards P10: a process with secrets leaves no core dump and lets no other process of its user read it."""

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource, sys
from keyark.crypto.harden import disable_core_dumps
PR_GET_DUMPABLE = 3
before = ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
disable_core_dumps()
disable_core_dumps()
print(before, ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_core_dumps_are_off_for_good():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1", "0", "0", "0"]
