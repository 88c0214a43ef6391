"""What commands write while no service runs, done on a disk that lacks something: nothing of before is lost.

    python -m tests.support.running.offline_work hard-links|fsync|room FOLDER TEMPLATE

The deployment of TEMPLATE is copied to FOLDER. It prints what each job came to, and ends with an assertion where a job
loses something, leaves half of it, or does not end as it should.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.running.command_tables import PROCESSES, cases, run
from tests.support.running.deployment import copy_deployment
from tests.support.running.poor_disks import FullDisk, without_fsync, without_hard_links

Words = Callable[[Path, Path], list[object]]
"""The words of a command, given the home and a path where nothing is yet."""

DOMAIN = ["--trust-domain", "example.org"]
ARCHIVE = [
    "--storage-key-id",
    "ab" * 32,
    "--quorum",
    "2",
    *(f"--agent=agent/{n}" for n in ("alice", "bob", "carol")),
]
LEFT = (0, 1, 1, 2, 3, 5, 8, 10, 14, 20)
"""Pages that a full disk has left: work ends at another step each time."""


def service(home: Path, new: Path) -> list[object]:
    return [new, *DOMAIN, "--listen=127.0.0.1:0", "--trust-anchor", home / "trust-anchor.pem"]


def share_keys(home: Path) -> list[str]:
    agents = home / "identities" / "agent"
    return [f"--agent={agents / name / 'share-key.json'}" for name in ("alice", "bob", "carol")]


JOBS: dict[str, tuple[int, Words]] = {
    "authority": (0, lambda home, new: ["authority", "init", new, *DOMAIN]),
    "request": (0, lambda home, new: ["identities", "request", "agent/dave", "--home", home]),
    "issued": (
        0,
        lambda home, new: [
            "identities", "issue", "agent/dave", home / "identities" / "agent" / "dave" / "identity.csr",
            "--home", home, "--out", home / "dave.pem",
        ],
    ),
    "installed": (0, lambda home, new: ["identities", "install", home / "dave.pem", "--home", home]),
    "pins": (
        0,
        lambda home, new: [
            "agents", "pin", "--home", home, "--as=agent/bob", "--quorum=2", f"--storage-key={'ab' * 32}",
            *share_keys(home),
        ],
    ),
    "renewed": (0, lambda home, new: ["identities", "renew", "client/enroller", "--home", home]),
    "revoked": (
        0,
        lambda home, new: ["identities", "revoke", "officer/officer", "--reason=superseded", "--home", home],
    ),
    "enrolled": (
        1,  # no service runs
        lambda home, new: [
            "enroll", "--home", home, "--name=Alice", "--email=alice@example.org", "--out", new,
        ],
    ),
    "rm": (
        0,
        lambda home, new: ["keyark-rm", "init", *service(home, new), "--cm=x:1", "--drm=x:2", *ARCHIVE],
    ),
    "cm": (0, lambda home, new: ["keyark-cm", "init", *service(home, new), "--ca-name=CA", *ARCHIVE]),
    "drm": (0, lambda home, new: ["keyark-drm", "init", *service(home, new), "--quorum=2", *share_keys(home)]),
    "checked": (0, lambda home, new: ["keyark-drm", "check", home / "drm" / "drm.toml"]),
    "rm backup": (0, lambda home, new: ["keyark-rm", "backup", home / "rm" / "rm.toml", new]),
    "drm backup": (0, lambda home, new: ["keyark-drm", "backup", home / "drm" / "drm.toml", new]),
    "CA key": (0, lambda home, new: ["keyark-cm", "ca-key", home / "cm" / "cm.toml", "--name=CA 2"]),
    "CA request": (0, lambda home, new: ["keyark-cm", "ca-request", home / "cm" / "cm.toml"]),
}  # fmt: skip


def do(name: str, folder: Path, attempt: int) -> bool:
    """Do a job in a folder with a deployment; returns whether it came to what it does on any other disk.

    Asserts that a job that failed left everything as it was, and that none leaves a temporary file.
    """
    home, new = folder / "deployment", folder / f"{name}-{attempt}".replace(" ", "-")
    expected, words = JOBS[name]
    before = dict(_contents(folder))
    code = run([str(word) for word in words(home, new)])
    after = dict(_contents(folder))
    print(f"{name} {attempt}: {code}; {', '.join(sorted(after.keys() - before.keys()))}")
    lost = [path for path in before if not _is_kept(path, before[path], after.get(path, b""))]
    assert code == 0 or not lost, (name, lost)
    made = after.keys() - before.keys()
    assert not [path for path in made if Path(path).name.startswith(".")], made
    assert code == 0 or "init" not in words(home, new)[:2] or not made, made
    return code == expected


def _is_kept(path: str, before: bytes, after: bytes) -> bool:
    """Whether a file is as it was; records of what was issued may have grown, and the RM's new store is begun."""
    grows = path.endswith(".jsonl") and after.startswith(before)
    return after == before or grows or path == "deployment/rm/store/data.mdb"


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("lock.mdb", "filler"):
            yield str(path.relative_to(folder)), path.read_bytes()


def walk(folder: Path) -> None:
    """Call every command with each of its paths in the folder, where nothing is yet; none ends in a traceback."""
    for number, case in enumerate(cases()):
        if case.name not in PROCESSES and case.name != ("init",):
            case.run(folder / f"place-{number}", folder / "deployment", folder)


def on_a_full_disk(folder: Path, template: Path) -> None:
    """Each job ends at another step as there is more room; in the same place it then goes on as if nothing had been."""
    disk = FullDisk(folder, mebibytes=16)
    deployment(template, folder)
    disk.fill(left=0)
    walk(folder)
    for name in JOBS:
        attempt = 0
        for left in LEFT:
            disk.fill(left=left)
            attempt += do(name, folder, attempt)
        disk.make_room()
        assert do(name, folder, attempt), name
    assert (folder / "deployment" / "identities" / "agent" / "dave" / "share-key.json").exists()


def deployment(template: Path, folder: Path) -> None:
    """Copy a deployment whose services listen nowhere in particular, so that `check` finds their addresses free."""
    copy_deployment(template, folder / "deployment")
    for role in ("rm", "cm", "drm"):
        config = folder / "deployment" / role / f"{role}.toml"
        config.write_text(re.sub(r'^listen = ".*"', 'listen = "127.0.0.1:0"', config.read_text(), flags=re.M))


def main(lacks: str, folder: Path, template: Path) -> None:
    """Do all jobs on a disk that lacks hard links, fsync or room."""
    if lacks == "room":
        on_a_full_disk(folder, template)
        return
    deployment(template, folder)
    (without_fsync if lacks == "fsync" else without_hard_links)()
    for name in JOBS:
        assert do(name, folder, 0) or lacks == "fsync", name
    walk(folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
