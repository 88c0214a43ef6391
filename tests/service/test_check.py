"""`check` says "fit to run" of no service that could not start: every file that a start needs is looked at."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from importlib import import_module
from pathlib import Path

import pytest

from keyark.config import load_config
from keyark.errors import KeyarkError
from tests.support.running.deployment import copy_deployment, edit, running
from tests.support.running.processes import keyark

ROLES = ("rm", "cm", "drm")
NOT_NEEDED = {"store", "log.pub.pem", "deployment.toml"}
"""In a service's folder: what it makes at its start, what others take from there, what it hands out if it is there."""


@pytest.fixture(scope="module")
def template(deployment_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment whose CA has two keys, lists and OCSP, and whose services know a list of revoked identities."""
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("check") / "deployment")
    edit(folder / "cm" / "cm.toml", "[archive]", '[http]\nlisten = "127.0.0.1:0"\n\n[archive]')
    for role in ROLES:
        edit_port(folder, role)
    keyark("ca", "rollover", "--home", folder, "--name", "Issuing CA 2")
    return folder


def edit_port(folder: Path, role: str) -> None:
    path = folder / role / f"{role}.toml"
    lines = path.read_text().split("\n")
    first = next(i for i, text in enumerate(lines) if text.startswith("listen ="))
    lines[first] = 'listen = "127.0.0.1:0"'
    path.write_text("\n".join(lines))


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return copy_deployment(template, tmp_path / "deployment")


def check(folder: Path, role: str) -> list[str]:
    program = import_module(f"{role}_service.__main__").PROGRAM
    return [*program.check(load_config(folder / role / f"{role}.toml", program.config))]


@pytest.mark.parametrize("role", ROLES)
def test_a_service_that_misses_any_file_is_not_fit(folder: Path, role: str) -> None:
    """Removed, emptied, and made another's of its kind: check refuses it as the start would."""
    assert check(folder, role)[-1] == f"{role} is ready to run"
    needed = {p for p in (folder / role).iterdir() if p.name not in NOT_NEEDED and p.suffix != ".csr"}
    assert len(needed) >= 5
    passed = []
    for path in sorted(needed):
        kept = path.with_name("kept")
        path.rename(kept)
        for how in ("missing", "empty", "a folder"):
            if how == "empty":
                path.touch(mode=0o600)
            if how == "a folder":
                path.unlink()
                path.mkdir(mode=0o700)
            with contextlib.suppress(KeyarkError):
                check(folder, role)
                passed.append((path.name, how))
        path.rmdir()
        kept.rename(path)
    assert passed == []
    assert check(folder, role)[-1] == f"{role} is ready to run"


def test_every_ca_key_is_named(folder: Path) -> None:
    lines = check(folder, "cm")
    assert [line.split(",")[0] for line in lines if line.startswith("CA key:")] == [
        "CA key: generation 1",
        "CA key: generation 0",
    ]


def test_a_ca_key_that_is_not_its_certificates_is_found(folder: Path) -> None:
    shutil.copyfile(folder / "cm" / "ca-key-1.pem", folder / "cm" / "ca-key.pem")
    with pytest.raises(KeyarkError, match="not the one of the CA certificate"):
        check(folder, "cm")


@pytest.mark.parametrize("role", ROLES)
def test_an_address_that_is_taken_or_not_of_this_host_is_found(folder: Path, role: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        edit(folder / role / f"{role}.toml", 'listen = "127.0.0.1:0"', f'listen = "{taken}"')
        with pytest.raises(KeyarkError, match=f"at (http://)?{taken}"):
            check(folder, role)
    edit(folder / role / f"{role}.toml", f'listen = "{taken}"', 'listen = "192.0.2.1:7710"')
    with pytest.raises(KeyarkError, match=r"192\.0\.2\.1:7710"):
        check(folder, role)


@pytest.mark.parametrize("role", ROLES)
def test_a_policy_that_stops_the_start_is_found(folder: Path, role: str) -> None:
    config = folder / role / f"{role}.toml"
    config.write_text(
        f'{config.read_text()}\n[[policy.rule]]\nname = "odd"\nstage = "none"\ntype = "KeyTypes"\n'
    )
    with pytest.raises(KeyarkError, match="stage"):
        check(folder, role)


def test_a_responder_and_a_list_that_were_in_force_are_missed(folder: Path) -> None:
    keyark("identities", "revoke", "client/enroller", "--reason", "superseded", "--home", folder)
    asyncio.run(start_once(folder))
    for role in ROLES:
        assert check(folder, role)[-1] == f"{role} is ready to run"
    responder = folder / "cm" / "ocsp-responder-ca1.pem"
    whole = responder.read_bytes()
    responder.write_bytes(whole[whole.index(b"-----BEGIN CERTIFICATE") :])
    with pytest.raises(KeyarkError, match="ocsp-responder-ca1"):
        check(folder, "cm")
    responder.write_bytes(b"junk")  # the start would make another
    assert check(folder, "cm")[-1] == "cm is ready to run"
    for role in ROLES:
        (folder / role / "revoked-identities.crl").unlink()
        with pytest.raises(KeyarkError, match="copy the newest one from the authority"):
            check(folder, role)


async def start_once(folder: Path) -> None:
    async with running(folder):
        pass
