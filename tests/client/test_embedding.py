"""The SDK in a program of somebody else: it changes nothing of its process, and speaks TLS 1.3 all the same."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.running.rpc import Scripted, identity, serving

SETTINGS_OF_THE_PROCESS = """
import faulthandler, gc, importlib, locale, logging, os, pkgutil, resource, signal, sys, threading, warnings
import google.protobuf, cryptography

def umask():
    found = os.umask(0o77)
    os.umask(found)
    return found

def settings():
    return {
        "environment": dict(os.environ),
        "signals": {s: signal.getsignal(s) for s in signal.valid_signals()},
        "warnings": list(warnings.filters),
        "loggers": (logging.root.level, list(logging.root.handlers), logging.getLogRecordFactory()),
        "limits": [resource.getrlimit(n) for n in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)],
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook),
        "streams": (sys.stdout, sys.stderr, sys.stdin),
        "path": list(sys.path),
        "recursion": (sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits()),
        "collector": (gc.isenabled(), gc.get_threshold()),
        "threads": threading.active_count(),
        "folder": os.getcwd(),
        "umask": umask(),
        "locale": locale.setlocale(locale.LC_ALL),
        "faults": faulthandler.is_enabled(),
        "dumpable": open("/proc/self/coredump_filter").read(),
    }

before = settings()
import keyark, keyark.client
for module in pkgutil.walk_packages(keyark.client.__path__, "keyark.client."):
    importlib.import_module(module.name)
changed = [name for name, value in settings().items() if value != before[name]]
print(changed, keyark.__version__, "grpc" in sys.modules)
"""


def test_importing_the_sdk_changes_no_setting_of_its_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SETTINGS_OF_THE_PROCESS],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={name: value for name, value in os.environ.items() if not name.startswith("GRPC_")},
    )
    assert done.stdout.split() == ["[]", "0.2.0", "True"]
    assert done.stderr == ""


CALL = """
import grpc  # as a program does that uses gRPC for something else as well
import asyncio, os, sys
from keyark.identity.spiffe import SpiffeId
from keyark.rpc.calling.channels import call, open_channel
from keyark.rpc.identities import LocalIdentity
from keyark.v1 import audit_pb2, audit_pb2_grpc
from pathlib import Path

async def main():
    folder = Path(sys.argv[2])
    files = {name: folder / f"{name}.pem" for name in ("key", "certificate", "trust_anchor")}
    who = LocalIdentity.load(**files)
    async with open_channel(sys.argv[1], who, server_role="drm", trust_domain="example.org") as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        await call(stub.GetCheckpoint, audit_pb2.GetCheckpointRequest(), timeout=5)
    print("GRPC_SSL_CIPHER_SUITES" in os.environ)

asyncio.run(main())
"""


async def call_from_a_program(port: int, folder: Path) -> tuple[str, str]:
    """Call a service on this machine as a program does that imported gRPC itself; returns what it prints."""
    who = identity("auditor/otto")
    folder.chmod(0o700)
    files = (("key", who.private_key), ("certificate", who.certificate), ("trust_anchor", who.trust_anchor))
    for name, data in files:
        (folder / f"{name}.pem").write_bytes(data)
        (folder / f"{name}.pem").chmod(0o600)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CALL, f"127.0.0.1:{port}", str(folder)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("GRPC_")},
    )
    printed, errors = await process.communicate()
    return printed.decode(), errors.decode()


async def test_an_sdk_whose_program_imported_grpc_itself_speaks_tls_1_3(tmp_path: Path) -> None:
    async with serving(Scripted()) as server:
        printed, _ = await call_from_a_program(server.port, tmp_path)
    assert printed == "False\n"  # the service refuses calls of any other version


SUPPORTED_VERSIONS = b"\x00\x2b"
TLS_1_3 = b"\x03\x04"
TLS_1_2 = b"\x03\x03"


@asynccontextmanager
async def downgrading(port: int) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Relay to a port of this machine, with TLS 1.3 taken out of what the client offers."""
    seen: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        hello = await reader.read(1 << 16)
        at = hello.index(SUPPORTED_VERSIONS, 100)
        size = int.from_bytes(hello[at + 2 : at + 4])
        versions = hello[at + 4 : at + 4 + size]
        assert TLS_1_3 in versions
        up_writer.write(hello.replace(versions, versions.replace(TLS_1_3, TLS_1_2)))
        tasks.update(
            {asyncio.create_task(copy(reader, up_writer)), asyncio.create_task(copy(up_reader, writer))}
        )
        seen.append(versions)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_network_that_takes_tls_1_3_out_of_the_offer_gets_no_connection(tmp_path: Path) -> None:
    async with serving(Scripted()) as server, downgrading(server.port) as (port, seen):
        printed, errors = await call_from_a_program(port, tmp_path)
    assert seen
    assert printed == ""
    assert "NoConnectionError" in errors
