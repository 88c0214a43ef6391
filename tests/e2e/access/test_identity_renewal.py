"""Certificates of services are renewed while they run: new connections meet the new ones, and no call is lost."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from keyark.client import EnrollmentClient
from keyark.client.access.passwords import no_password
from keyark.client.audit.expiring import served_certificate
from keyark.client.audit.findings import Examination
from keyark.client.trust.verification import Enrolled
from keyark.clock import ManualClock
from keyark.deployment.access.authority import DeploymentAuthority, InternalCaEndsError
from keyark.deployment.access.identities import IdentityRenewal
from keyark.errors import ConfigurationError, KeyarkError
from keyark.identity.certificates import renew_identity
from keyark.identity.files import IdentityFiles
from keyark.keys.key_types import KeyType, generate_signing
from keyark.keys.private_keys import load_private_key, save_private_key
from keyark.x509.authority import CertificateRequestError, create_internal_ca
from keyark.x509.certificates import Validity, load_certificates, save_certificates
from tests.support.running.deployment import Deployment, running
from tests.support.running.processes import init_home, keyark, up
from tests.support.stories.attacks import another_ca, forge_identity, internal_ca
from tests.support.stories.recovering import REASON, agents, identity_file, lose_key

SERVICES = ("rm", "cm", "drm")
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def renewal(folder: Path) -> IdentityRenewal:
    return IdentityRenewal(home=folder, authority=DeploymentAuthority.load(folder / "authority"))


async def presented(deployment: Deployment) -> dict[str, int]:
    """The serial numbers that the services show to who connects now."""
    examination = Examination(home=deployment.home(), password=no_password, now=time.time, within=0)
    return {role: (await served_certificate(examination, role)).serial_number for role in SERVICES}


def service_files(folder: Path, role: str) -> IdentityFiles:
    return IdentityFiles(key=folder / role / "identity-key.pem", certificate=folder / role / "identity.pem")


def on_disk(folder: Path) -> dict[str, int]:
    return {role: load_certificates(folder / role / "identity.pem")[0].serial_number for role in SERVICES}


async def refresh(deployment: Deployment) -> None:
    """What happens by itself every 30 seconds, and at once with `reload`."""
    for service in deployment.services.values():
        await service.reloads[0]()


async def enroll(client: EnrollmentClient, number: int) -> Enrolled:
    return await client.enroll(common_name=f"User {number}", email=f"user{number}@example.org")


async def test_renewed_services_are_met_with_new_certificates_and_lose_no_call(
    deployment_folder: Path,
) -> None:
    async with running(deployment_folder) as deployment, deployment.client() as client:
        await enroll(client, 0)
        before = await presented(deployment)
        assert before == on_disk(deployment_folder)
        under_way = [asyncio.create_task(enroll(client, number)) for number in range(1, 13)]
        for role in SERVICES:
            renewal(deployment_folder).authority.replace_identity(service_files(deployment_folder, role))
        await refresh(deployment)
        under_way += [asyncio.create_task(enroll(client, number)) for number in range(13, 25)]
        assert all(isinstance(one, Enrolled) for one in await asyncio.gather(*under_way))
        after = await presented(deployment)
    assert after == on_disk(deployment_folder)
    assert all(after[role] != before[role] for role in SERVICES)


@pytest.mark.parametrize("is_renewed", [True, False])
async def test_the_rm_itself_calls_with_its_new_certificate(
    deployment_folder: Path, is_renewed: bool
) -> None:
    """CM and DRM refuse a caller whose certificate has ended, also over a connection of before."""
    forged(deployment_folder, seconds=200)
    clock = ManualClock(time.time_ns() // 1000)
    async with running(deployment_folder, clock) as deployment, deployment.client() as client:
        await enroll(client, 0)
        if is_renewed:
            renewal(deployment_folder).renew(["rm"])
            await refresh(deployment)
        clock.advance(250)
        if is_renewed:
            await enroll(client, 1)
        else:
            with pytest.raises(KeyarkError) as refused:
                await enroll(client, 1)
            assert refused.value.reason == "UNAUTHENTICATED"


async def test_agents_with_new_keys_go_on_with_a_ceremony_of_before(deployment_folder: Path) -> None:
    """What was signed with the older keys stays good, and shares do not depend on them."""
    async with running(deployment_folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob") as (alice, bob):
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            await bob.approve(await bob.review(asked.ceremony_id))
        for name in ("alice", "bob", "carol"):
            path = identity_file(deployment_folder, name, "cert.pem")
            files = IdentityFiles(key=path.with_name("key.pem"), certificate=path)
            renewal(deployment_folder).authority.replace_identity(files)
        async with agents(deployment, "alice", "carol") as (alice, carol):
            await carol.approve(await carol.review(asked.ceremony_id))
            (recovered,) = await alice.collect(asked.ceremony_id)
            assert recovered.private_key == lost.private_key
            again = await alice.request_keys([lost.key_id], reason=REASON)
            assert again.ceremony_id != asked.ceremony_id


def other_service(folder: Path) -> None:
    shutil.copy(folder / "cm" / "identity.pem", folder / "rm" / "identity.pem")
    shutil.copy(folder / "cm" / "identity-key.pem", folder / "rm" / "identity-key.pem")


def other_key(folder: Path) -> None:
    (folder / "rm" / "identity-key.pem").unlink()
    save_private_key(folder / "rm" / "identity-key.pem", generate_signing(KeyType.EC_P256))


def garbage(folder: Path) -> None:
    (folder / "rm" / "identity.pem").write_bytes(
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )


def gone(folder: Path) -> None:
    (folder / "rm" / "identity.pem").unlink()


def lax(folder: Path) -> None:
    (folder / "rm" / "identity-key.pem").chmod(0o644)
    garbage(folder)


def forged(folder: Path, **options: object) -> None:
    made = forge_identity(
        folder, uris=["spiffe://example.org/rm"], dns=["rm.example.org"], purposes=BOTH, **options
    )
    (folder / "rm" / "identity.pem").write_bytes(made.certificate)
    (folder / "rm" / "identity-key.pem").write_bytes(made.private_key)


def other_issuer(folder: Path) -> None:
    forged(folder, authority=another_ca(folder))


def ended(folder: Path) -> None:
    forged(folder, starting=-7200, seconds=3600)


def not_yet(folder: Path) -> None:
    forged(folder, starting=7200)


@pytest.mark.parametrize(
    "spoil", [other_service, other_key, garbage, gone, lax, other_issuer, ended, not_yet]
)
async def test_an_identity_that_is_not_good_is_refused_and_the_present_one_stays(
    deployment_folder: Path, spoil: object
) -> None:
    async with running(deployment_folder) as deployment, deployment.client() as client:
        before = await presented(deployment)
        spoil(deployment_folder)  # type: ignore[operator]
        with pytest.raises(KeyarkError):
            await deployment.services["rm"].reloads[0]()
        assert await presented(deployment) == before
        await enroll(client, 1)


def test_only_what_the_authority_issued_is_renewed(deployment_folder: Path) -> None:
    forged(deployment_folder, authority=another_ca(deployment_folder))
    before = on_disk(deployment_folder)
    with pytest.raises(CertificateRequestError, match="not from this internal CA"):
        renewal(deployment_folder).renew(["rm"])
    with pytest.raises(ConfigurationError, match="no identity 'client/nobody'"):
        renewal(deployment_folder).renew(["cm", "client/nobody"])
    transport = next(deployment_folder.glob("drm/transport-keys/1/transport.pem"))
    with pytest.raises(CertificateRequestError, match="transport-key rotate"):
        renewal(deployment_folder).authority.renew_identity(transport)
    assert on_disk(deployment_folder) == before


def test_a_renewed_identity_is_the_same_but_for_its_time(deployment_folder: Path) -> None:
    path = deployment_folder / "identities" / "client" / "enroller" / "cert.pem"
    short = forge_identity(deployment_folder, uris=["spiffe://example.org/client/enroller"], seconds=3600)
    path.write_bytes(short.certificate)
    path.with_name("key.pem").write_bytes(short.private_key)
    assert "client/enroller" in renewal(deployment_folder).due(86_400)
    (old,), (told,) = load_certificates(path), renewal(deployment_folder).renew(["client/enroller"])
    (new,) = load_certificates(path)
    assert new.public_key() != old.public_key()
    assert (path.with_name("key.pem").stat().st_mode & 0o777) == 0o600
    assert load_private_key(path.with_name("key.pem")).public_key() == new.public_key()
    assert new.serial_number != old.serial_number
    assert told.not_after == int(new.not_valid_after_utc.timestamp()) > time.time() + 700 * 86_400
    assert "client/enroller" not in renewal(deployment_folder).due(86_400)
    new.verify_directly_issued_by(internal_ca(deployment_folder).certificate)
    request = x509.load_pem_x509_csr(path.with_name("identity.csr").read_bytes())
    assert request.public_key() == new.public_key()


def test_a_key_that_is_encrypted_or_not_here_stays(deployment_folder: Path) -> None:
    for name, note in (("client/enroller", "encrypted"), ("auditor/auditor", "not here")):
        path = deployment_folder / "identities" / name / "cert.pem"
        key = load_private_key(path.with_name("key.pem"))
        path.with_name("key.pem").unlink()
        if note == "encrypted":
            save_private_key(path.with_name("key.pem"), key, password=b"secret")
        before, (told,) = load_certificates(path)[0], renewal(deployment_folder).renew([name])
        assert note in told.note
        assert load_certificates(path)[0].public_key() == before.public_key()
        assert load_certificates(path)[0].serial_number != before.serial_number


def test_the_command_renews_and_running_services_take_it(tmp_path: Path) -> None:
    folder = tmp_path / "deployment"
    init_home(folder)
    assert "it is not running" in keyark("identities", "renew", "rm", "--home", folder).stdout
    with up(folder):
        printed = keyark("identities", "renew", "--all", "--home", folder).stdout
        assert printed.count("the running service uses it") == 3
        assert "client/enroller: valid until" in printed
        keyark("enroll", "--home", folder, "--name", "A", "--email", "a@example.org", "--out", tmp_path / "a")
        assert keyark("identities", "renew", "--within", "30d", "--home", folder).stdout == "nothing is due\n"
        assert "healthy" in keyark("doctor", "--home", folder).stdout
    assert "Name whom" in keyark("identities", "renew", "--home", folder, code=2).stderr
    elsewhere = tmp_path / "elsewhere"
    keyark("authority", "init", elsewhere, "--trust-domain", "example.org")
    told = keyark("identities", "renew", "rm", "--home", folder, "--authority", elsewhere, code=1).stderr
    assert "not from this internal CA" in told


async def test_a_renewed_chain_file_may_hold_more_than_the_certificate(deployment_folder: Path) -> None:
    path = deployment_folder / "rm" / "identity.pem"
    async with running(deployment_folder) as deployment:
        renewal(deployment_folder).authority.renew_identity(path)
        save_certificates(path, [*load_certificates(path), internal_ca(deployment_folder).certificate])
        await refresh(deployment)
        assert (await presented(deployment))["rm"] == load_certificates(path)[0].serial_number


def shorten_internal_ca(folder: Path, *, starting: int, seconds: int) -> None:
    """Let the internal CA be valid for so long only; its key and name stay."""
    present = internal_ca(folder)
    validity = Validity.starting(int(time.time()) + starting, lifetime_seconds=seconds)
    ending = create_internal_ca(present.private_key, subject=present.certificate.subject, validity=validity)
    save_certificates(folder / "authority" / "internal-ca.pem", [ending.certificate])


@pytest.mark.parametrize(("starting", "seconds"), [(0, 86_400), (-7200, 3600)])
def test_nothing_is_renewed_where_the_internal_ca_ends_first(
    deployment_folder: Path, starting: int, seconds: int
) -> None:
    shorten_internal_ca(deployment_folder, starting=starting, seconds=seconds)
    before = on_disk(deployment_folder)
    for name in ("rm", "client/enroller"):
        with pytest.raises(InternalCaEndsError, match="keyark authority renew"):
            renewal(deployment_folder).renew([name])
    assert on_disk(deployment_folder) == before
    for role in SERVICES:
        service_files(deployment_folder, role).load()
        assert not service_files(deployment_folder, role).next_key.exists()


def test_who_is_renewed_until_the_internal_ca_ends_is_told_so(deployment_folder: Path) -> None:
    forged(deployment_folder, seconds=3600)
    shorten_internal_ca(deployment_folder, starting=0, seconds=86_400)
    (told,) = renewal(deployment_folder).renew(["rm"])
    assert "the internal CA ends then too" in told.note
    with pytest.raises(InternalCaEndsError):
        renewal(deployment_folder).renew(["rm"])


async def test_identities_that_ended_while_the_deployment_was_off_are_renewed_without_it(
    deployment_folder: Path,
) -> None:
    authority = DeploymentAuthority.load(deployment_folder / "authority")
    renewal = IdentityRenewal(home=deployment_folder, authority=authority)
    began = authority.internal.validity.not_before
    for path in renewal.identities().values():
        present = load_certificates(path)[0]
        ended = renew_identity(authority.internal, present, validity=Validity(began, began + 1))
        save_certificates(path, [ended])
    with pytest.raises(KeyarkError):
        async with running(deployment_folder) as deployment, deployment.client() as client:
            await client.form()
    await asyncio.to_thread(renewal.renew, list(renewal.identities()))
    async with running(deployment_folder) as deployment, deployment.client() as client:
        await client.enroll(common_name="Alice Example", email="alice@example.org")
