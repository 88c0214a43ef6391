"""Guards P10: a process with secrets leaves no core dump and lets no other process of its user read it."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from keyark.load.planning.assignment import Assignment
from keyark.load.planning.plan import Closed, LoadPlan

SCRIPT = """
import ctypes, resource, sys
from keyark.custody.harden import disable_core_dumps
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


HOST = """
import ctypes, resource
before = resource.getrlimit(resource.RLIMIT_CORE)
import keyark.cli.main, keyark.client
assert resource.getrlimit(resource.RLIMIT_CORE) == before
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_the_sdk_leaves_its_host_process_as_it_is():
    subprocess.run([sys.executable, "-c", HOST], check=True)


WITH_CORE_DUMPS = ["sh", "-c", 'ulimit -c "$(ulimit -H -c)"; exec "$@"', "sh"]


def command(home: Path) -> tuple[list[str], bytes]:
    """The `keyark` command, as a person runs it."""
    arguments = ["enrollments", "list", "--home", str(home), "--as", "officer/officer"]
    return ["keyark.cli", *arguments], b""


def load_client(home: Path) -> tuple[list[str], bytes]:
    """A process of `keyark load`."""
    keys = (home / "keys", 0, 0)
    assignment = Assignment(
        plan=LoadPlan(home=home, arrival=Closed(clients=1), seconds=1), index=0, signing=keys, encryption=keys
    )
    return ["keyark.load.driving.client"], assignment.model_dump_json().encode() + b"\n"


@pytest.mark.skipif(sys.platform != "linux", reason="core dumps are files on Linux")
@pytest.mark.parametrize("program", [command, load_client])
def test_a_program_at_a_persons_desk_leaves_no_core_dump_with_an_identity_key(
    deployment_folder: Path, tmp_path: Path, program: Callable[[Path], tuple[list[str], bytes]]
) -> None:
    """Any local user who finds one: the program is aborted when it has its identity and calls the RM."""
    with socket.create_server(("127.0.0.1", 0)) as rm:
        home = deployment_folder / "keyark.toml"
        address = f'rm = "127.0.0.1:{rm.getsockname()[1]}"'
        home.write_text(re.sub(r'(?m)^rm = "[^"]*"', address, home.read_text()))
        words, told = program(deployment_folder)
        process = subprocess.Popen(
            [*WITH_CORE_DUMPS, sys.executable, "-I", "-m", *words], cwd=tmp_path, stdin=subprocess.PIPE
        )
        with process.stdin as stdin:
            stdin.write(told)
            stdin.flush()
            rm.accept()[0].close()
            process.send_signal(signal.SIGABRT)
            _, status = os.waitpid(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == -signal.SIGABRT
    assert not os.WCOREDUMP(status)
    assert list(tmp_path.glob("core*")) == []
