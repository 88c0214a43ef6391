"""Hosts on one network, each with a network namespace, an /etc/hosts and a folder of its own; gone with the test.

Needs `ip` and `nsenter`, and either root or a kernel that lets users make namespaces.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.running.command_client import command_server

TRAVEL = (".answer", ".csr", ".toml", ".pem", ".json", ".crl")
"""How files are called that leave their host: answers, requests, bundles, certificates, lists."""


class Namespace:
    """A network namespace and a mount namespace, held by a process that ends when the test closes its input."""

    def __init__(self, inside: Namespace | None = None) -> None:
        new = (
            ["unshare", "--net", "--mount"] if inside else ["unshare", "--map-root-user", "--net", "--mount"]
        )
        words = [*(inside.enter() if inside else []), *new, "sh", "-c", "echo; exec cat"]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"\n", (
            "no namespace: this needs root, or namespaces of users"
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def enter(self) -> list[str]:
        """The words before a command that runs it here."""
        return ["nsenter", "--target", str(self.pid), "--user", "--preserve-credentials", "--net", "--mount"]

    def ip(self, words: str) -> None:
        subprocess.run([*self.enter(), "ip", *words.split()], check=True)

    def close(self) -> None:
        self._process.communicate()


class Network:
    """A switch, and the hosts that are plugged in; their names are told in each host's own /etc/hosts."""

    def __init__(self, folder: Path, hosts: list[str], *, offline: list[str]) -> None:
        """``hosts`` get 10.77.0.1 and fd77::1 and those after them, ``offline`` ones a loopback only."""
        self._switch = Namespace()
        self._switch.ip("link add bridge0 type bridge")
        self._switch.ip("link set bridge0 up")
        self._number = {name: number for number, name in enumerate(hosts, 1)}
        self._names = folder / "hosts"
        self._names.write_text(
            "127.0.0.1 localhost\n" + "".join(f"{self.address(name)} {name}.example.org\n" for name in hosts)
        )
        self.hosts = {name: self._plug(name, folder / name) for name in hosts}
        self.hosts |= {name: self._host(name, folder / name) for name in offline}

    def address(self, name: str) -> str:
        """The IPv4 address of a host."""
        return f"10.77.0.{self._number[name]}"

    def address6(self, name: str) -> str:
        """The IPv6 address of a host."""
        return f"fd77::{self._number[name]}"

    def _host(self, name: str, folder: Path) -> Host:
        folder.mkdir()
        namespace = Namespace(inside=self._switch)
        namespace.ip("link set lo up")
        subprocess.run([*namespace.enter(), "mount", "--bind", str(self._names), "/etc/hosts"], check=True)
        return Host(name, folder, namespace)

    def _plug(self, name: str, folder: Path) -> Host:
        host = self._host(name, folder)
        self._switch.ip(f"link add {name} type veth peer name eth0 netns {host.namespace.pid}")
        self._switch.ip(f"link set {name} master bridge0 up")
        host.namespace.ip(f"addr add {self.address(name)}/24 dev eth0")
        host.namespace.ip(f"addr add {self.address6(name)}/64 dev eth0 nodad")
        host.namespace.ip("link set eth0 up")
        return host

    def close(self) -> None:
        for host in self.hosts.values():
            host.namespace.close()
        self._switch.close()


class Host:
    """One machine: a folder to work in, and a network of its own."""

    def __init__(self, name: str, folder: Path, namespace: Namespace) -> None:
        self.name, self.folder, self.namespace = name, folder, namespace
        self._path = (
            f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # keyark as in a shell where it is active
        )

    def _words(self, command: str) -> list[str]:
        where = ["env", "--chdir", str(self.folder), f"PATH={self._path}"]
        return [*self.namespace.enter(), *where, *shlex.split(command)]

    def run(self, command: str, *, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command as somebody types it here, to its end; fails unless it ends with ``code``."""
        program, *words = shlex.split(command)
        if program == "keyark":
            done = command_server().run(words, folder=self.folder, beside=self.namespace.pid)
        else:
            done = subprocess.run(
                self._words(command), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
            )
        assert done.returncode == code, (
            f"{self.name}$ {command}\n{done.returncode}: {done.stdout}{done.stderr}"
        )
        return done

    @contextlib.contextmanager
    def serving(self, command: str) -> Iterator[None]:
        """Run a service here, ready when this yields."""
        with subprocess.Popen(
            self._words(command), stdout=subprocess.PIPE, stderr=sys.stderr, text=True
        ) as process:
            try:
                assert process.stdout is not None
                told = process.stdout.readline()
                assert " ready at " in told, f"{self.name}$ {command}\n{told}"
                yield
            finally:
                process.terminate()

    def bring(self, file: str, other: Host, name: str | None = None) -> None:
        """Copy a file from another host to here; one that nobody but its owner may have does not travel."""
        source, target = other.folder / file, self.folder / (name or file)
        assert source.suffix in TRAVEL, f"{file} travels nowhere"
        assert b"PRIVATE KEY" not in source.read_bytes(), f"{file} holds a private key"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
