"""A client that stays open follows its identity: the next call presents the renewed certificate, and none is lost."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import keyark.client.access.renewal
from keyark.client import EnrollmentClient
from keyark.client.trust.verification import Enrolled
from keyark.clock import ManualClock
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.errors import KeyarkError
from keyark.identity.files import IdentityFiles
from keyark.keys.key_types import KeyType, generate_signing
from keyark.keys.private_keys import load_private_key, save_private_key
from keyark.x509.certificates import encode_certificate, load_pem_certificates, save_certificates
from tests.support.running.deployment import running
from tests.support.stories.attacks import forge_identity

NAME = "client/enroller"


@pytest.fixture(autouse=True)
def _looks_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyark.client.access.renewal, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(keyark.client.access.renewal, "AGAIN_SECONDS", 0.0)


def files_of(folder: Path) -> IdentityFiles:
    own = folder / "identities" / NAME
    return IdentityFiles(key=own / "key.pem", certificate=own / "cert.pem")


def renew(folder: Path) -> None:
    DeploymentAuthority.load(folder / "authority").replace_identity(files_of(folder))


def soon_over(folder: Path) -> None:
    """Give the client a certificate of 200 seconds."""
    made = forge_identity(folder, uris=[f"spiffe://example.org/{NAME}"], seconds=200)
    files_of(folder).certificate.write_bytes(made.certificate)
    files_of(folder).key.write_bytes(made.private_key)


async def enroll(client: EnrollmentClient, number: int) -> Enrolled:
    return await client.enroll(common_name=f"User {number}", email=f"user{number}@example.org")


@pytest.mark.parametrize("is_renewed", [True, False])
async def test_the_next_call_presents_the_renewed_certificate(
    deployment_folder: Path, is_renewed: bool
) -> None:
    """The RM refuses a caller whose certificate has ended, also over a connection of before."""
    soon_over(deployment_folder)
    clock = ManualClock(time.time_ns() // 1000)
    async with running(deployment_folder, clock) as deployment, deployment.client() as client:
        await enroll(client, 0)
        if is_renewed:
            renew(deployment_folder)
        clock.advance(250)
        if is_renewed:
            signed = client._signed([b"a statement"])
            assert signed.certificate == encode_certificate(files_of(deployment_folder).load()[1][0])
            await enroll(client, 1)
        else:
            with pytest.raises(KeyarkError) as refused:
                await enroll(client, 1)
            assert refused.value.reason == "UNAUTHENTICATED"


async def test_no_call_is_lost_while_the_identity_changes(deployment_folder: Path) -> None:
    async with running(deployment_folder) as deployment, deployment.client() as client:
        under_way = []
        for first in range(0, 12, 4):
            under_way += [asyncio.create_task(enroll(client, number)) for number in range(first, first + 4)]
            await client.form()  # what was started is on its way
            renew(deployment_folder)
        assert all(isinstance(one, Enrolled) for one in await asyncio.gather(*under_way))


def another_identity(folder: Path) -> None:
    for name in ("key.pem", "cert.pem"):
        shutil.copy(folder / "identities" / "auditor" / "auditor" / name, folder / "identities" / NAME / name)


def another_key(folder: Path) -> None:
    files_of(folder).key.unlink()
    save_private_key(files_of(folder).key, generate_signing(KeyType.EC_P256))


def garbage(folder: Path) -> None:
    files_of(folder).certificate.write_bytes(b"no certificate")


def gone(folder: Path) -> None:
    files_of(folder).key.unlink()


def open_to_others(folder: Path) -> None:
    renew(folder)
    files_of(folder).key.chmod(0o644)


def ended(folder: Path) -> None:
    made = forge_identity(folder, uris=[f"spiffe://example.org/{NAME}"], starting=-7200, seconds=3600)
    files_of(folder).certificate.write_bytes(made.certificate)
    files_of(folder).key.write_bytes(made.private_key)


@pytest.mark.parametrize("spoil", [another_identity, another_key, garbage, gone, open_to_others, ended])
async def test_files_that_are_not_good_are_told_and_the_present_identity_stays(
    deployment_folder: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    files, caplog_at = (
        files_of(deployment_folder),
        caplog.at_level(logging.ERROR, "keyark.client.access.renewal"),
    )
    key, chain = files.load()
    async with running(deployment_folder) as deployment, deployment.client() as client:
        await enroll(client, 0)
        spoil(deployment_folder)
        with caplog_at:
            await enroll(client, 1)
        assert "the current identity is kept" in caplog.text
        assert "PRIVATE KEY" not in caplog.text
        files.key.unlink(missing_ok=True)
        save_private_key(files.key, key)
        save_certificates(files.certificate, chain)
        caplog.clear()
        renew(deployment_folder)
        await enroll(client, 2)
        assert "the current identity is kept" not in caplog.text


async def test_the_password_of_a_key_is_asked_once(deployment_folder: Path) -> None:
    files, asked = files_of(deployment_folder), []
    soon_over(deployment_folder)
    key = load_private_key(files.key)
    files.key.unlink()
    save_private_key(files.key, key, password=b"secret")

    def password(path: Path) -> bytes:
        asked.append(path)
        return b"secret"

    clock = ManualClock(time.time_ns() // 1000)
    async with (
        running(deployment_folder, clock) as deployment,
        EnrollmentClient.open(deployment.home(), password=password) as client,
    ):
        await enroll(client, 0)
        DeploymentAuthority.load(deployment_folder / "authority").renew_identity(files.certificate)
        clock.advance(250)
        await enroll(client, 1)
    assert asked == [files.key]
    assert load_pem_certificates(files.certificate.read_bytes())[0].public_key() == key.public_key()
