"""The issuing CA certified again: whatever was issued and archived before goes on as before, or nothing changes."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509

from cm_service.config import CmConfig
from cm_service.issuer.generations import IssuerRenamedError
from cm_service.subsystem import run as run_cm
from keyark.client.access.sessions import open_session
from keyark.client.administration.revocation import publish_crls, revoke_certificates
from keyark.client.enrollment.folder import EnrollmentFolder
from keyark.client.enrollment.single import EnrollmentOrder, enroll_into, prepare_in
from keyark.config import load_config
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.identities import IdentityRenewal
from keyark.deployment.issuing_ca import CaCertificateError, IssuingCa, show_key_id
from keyark.errors import KeyarkError
from keyark.keys.key_types import KeyType, generate_signing, narrow_signing_key
from keyark.keys.private_keys import load_private_key
from keyark.service.control import Commands, answering
from keyark.v1.revocation_pb2 import RevocationReason
from keyark.x509.authority import (
    Authority,
    ca_name,
    create_root,
    issue_ca,
    load_certificate_request,
    request_ca,
    requested_key_id,
)
from keyark.x509.certificates import Validity, encode_certificate, load_certificates, save_certificates
from keyark.x509.serials import encode_serial, serial_text
from tests.support.keys.openssl import openssl
from tests.support.running.deployment import Deployment, edit, running
from tests.support.running.processes import keyark
from tests.support.stories.recovering import REASON, agents, approve, link
from tests.support.stories.rotation import rotate

YEAR = 365 * 86_400
PRINTABLE = x509.name._ASN1Type.PrintableString


def now() -> int:
    return int(time.time())


def serve_http(home: Path) -> None:
    config = home / "cm" / "cm.toml"
    edit(config, '# [http]\n# listen = "0.0.0.0:8080"', '[http]\nlisten = "127.0.0.1:0"')


def other_root(name: str = "Root Elsewhere") -> Authority:
    key = generate_signing(KeyType.EC_P256)
    validity = Validity.starting(now(), lifetime_seconds=10 * YEAR)
    return create_root(key, subject=ca_name(name), validity=validity, path_length=None)


def request_of(home: Path) -> x509.CertificateSigningRequest:
    target = home / "to-sign.csr"
    IssuingCa(home=home).write_request(target)
    return load_certificate_request(target.read_bytes())


def install(home: Path, *chain: x509.Certificate, is_fresh: bool = False) -> list[x509.Certificate]:
    save_certificates(home / "answer.pem", chain)
    return IssuingCa(home=home).install(home / "answer.pem", now=now(), is_fresh=is_fresh)


def signed(
    home: Path, authority: Authority, *, begins: int | None = None, years: int = 5, path_length: int = 0
) -> x509.Certificate:
    """The CA's certificate as an authority signs its request."""
    request = request_of(home)
    validity = Validity(now() - 300 if begins is None else begins, now() + years * YEAR)
    validity = replace(validity, not_before=max(validity.not_before, authority.validity.not_before))
    return issue_ca(authority, request, subject=request.subject, validity=validity, path_length=path_length)


def own_root(home: Path) -> Authority:
    folder = home / "authority"
    key = narrow_signing_key(load_private_key(folder / "root-key.pem"))
    return Authority(certificate=load_certificates(folder / "root.pem")[0], private_key=key)


def same_root_later(home: Path) -> None:
    """The same root, name and key identifier; it begins after everything that was issued before."""
    root = own_root(home)
    install(home, signed(home, root, begins=now()), root.certificate)


def another_root(home: Path) -> None:
    root = other_root()
    install(home, signed(home, root), root.certificate)


def another_root_of_the_same_name(home: Path) -> None:
    root = other_root()
    install(home, root.certificate, signed(home, root, begins=now()))


def a_ca_between(home: Path) -> None:
    root, key = other_root("Root Above"), generate_signing(KeyType.EC_P256)
    request = request_ca(key, subject=ca_name("Between"))
    middle = issue_ca(
        root,
        request,
        subject=request.subject,
        validity=Validity(now() - 300, now() + 9 * YEAR),
        path_length=1,
    )
    own = signed(home, Authority(certificate=middle, private_key=key))
    install(home, own, root.certificate, middle)


def back_to_the_first(home: Path) -> None:
    """The very chain that was in force at the beginning, which ca.pem kept."""
    root = own_root(home)
    known = load_certificates(home / "ca.pem")
    first = [one for one in known if one.issuer == root.certificate.subject and one != root.certificate]
    install(home, first[-1], root.certificate)


def another_key(home: Path) -> None:
    IssuingCa(home=home).roll_over("Issuing CA 2", "ec-p256")


KINDS: Sequence[Callable[[Path], None]] = (
    same_root_later,
    another_root,
    another_root_of_the_same_name,
    a_ca_between,
    back_to_the_first,
    another_key,
    another_root,  # for the second key
)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who was enrolled, with the folder and the key id of the archived key."""

    folder: EnrollmentFolder
    key_id: bytes

    def certificate(self, role: str = "signing") -> x509.Certificate:
        return load_certificates(self.folder.path / f"{role}.pem")[0]


async def enroll(deployment: Deployment, name: str, present: Person | None = None) -> Person:
    folder = EnrollmentFolder(path=deployment.folder.parent / name)
    order = EnrollmentOrder(
        common_name="Alice Example",
        email="alice@example.org",
        signing_key_type=KeyType.EC_P256,
        encryption_key_type=KeyType.EC_P256,
        present=present.folder.present() if present else None,
    )
    async with deployment.client() as client:
        await enroll_into(client, folder, order)
    prepared = folder.load()
    assert prepared is not None
    await link(
        deployment,
        prepared.statement.enrollment_id,
        encode_certificate(folder.certificates()[1]),
    )
    return Person(folder=folder, key_id=prepared.statement.encryption_spki_sha256)


async def check_recovered(deployment: Deployment, people: Sequence[Person]) -> None:
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([person.key_id for person in people], reason=REASON)
        await approve(asked.ceremony_id, bob, carol)
        recovered = {key.key_id: key for key in await alice.collect(asked.ceremony_id)}
        for person in people:
            key = recovered[person.key_id]
            assert key.certificate == person.certificate("encryption")
            key.certificate.verify_directly_issued_by(key.chain[0])
        await alice.acknowledge(asked.ceremony_id)


def check_verified(home: Path, people: Sequence[Person]) -> None:
    for person in people:
        for role in ("signing", "encryption"):
            certificate = person.folder.path / f"{role}.pem"
            openssl("verify", "-x509_strict", "-CAfile", home / "ca.pem", certificate)
            openssl("verify", "-x509_strict", "-CAfile", person.folder.path / "chain.pem", certificate)


async def check_status(deployment: Deployment, good: Person, revoked: Person) -> None:
    """Revoke one person's; then lists and OCSP tell both apart, and verify under everything that is kept."""
    home, serial = deployment.folder, revoked.certificate().serial_number
    async with open_session(deployment.home(), "cm", identity="officer/officer") as session:
        superseded = RevocationReason.REVOCATION_REASON_SUPERSEDED
        await revoke_certificates(session, [encode_serial(serial)], reason=superseded)
        await publish_crls(session)
    listed = set()
    for path in (home / "cm" / "crls").glob("*.crl"):
        told = openssl("crl", "-in", path, "-inform", "DER", "-noout", "-CAfile", home / "ca.pem")
        assert "verify OK" in told, path
        listed |= {entry.serial_number for entry in x509.load_der_x509_crl(path.read_bytes())}
    assert serial in listed
    assert good.certificate().serial_number not in listed
    url = f"http://127.0.0.1:{deployment.services['cm'].http_port}/ocsp"  # type: ignore[attr-defined]
    for person, standing in ((good, "good"), (revoked, "revoked")):
        issuer = person.folder.path / "issuer.pem"
        save_certificates(issuer, load_certificates(person.folder.path / "chain.pem")[:1])
        told = await asyncio.to_thread(
            openssl, "ocsp", "-issuer", issuer, "-cert", person.folder.path / "signing.pem", "-url", url,
            "-CAfile", home / "ca.pem", "-no_nonce",
        )  # fmt: skip
        assert f"signing.pem: {standing}" in told
        assert "Response verify OK" in told


async def test_after_every_kind_of_reinstall_all_of_before_goes_on(deployment_folder: Path) -> None:
    home = deployment_folder
    serve_http(home)
    async with running(home) as deployment:
        first = await enroll(deployment, "first")
        people = [first, await enroll(deployment, "to revoke 0"), await enroll(deployment, "to renew 0")]
    for number, reinstall in enumerate(KINDS, start=1):
        reinstall(home)
        async with running(home) as deployment:
            to_revoke, to_renew = people[-2:]
            renewed = await enroll(deployment, f"renewed {number}", present=to_renew)
            await check_recovered(deployment, [first, to_revoke, to_renew, renewed])
            check_verified(home, [first, to_renew, renewed])
            await check_status(deployment, first, to_revoke)
            people.append(renewed)
            people += [await enroll(deployment, f"to {verb} {number}") for verb in ("revoke", "renew")]
    owns = {one for one in load_certificates(home / "ca.pem") if one.issuer != one.subject}
    assert len(owns) == 8, "every chain that was in force is kept"


def as_doctor_prints(home: Path) -> None:
    """The very command, with everything stopped."""
    told = json.loads(keyark("doctor", "--home", home, "--json", code=1).stdout)
    (found,) = [one for one in told if one["subject"] == "issuing CA"]
    program, *words = shlex.split(found["command"], comments=True)
    assert (program, words[:2]) == ("keyark", ["ca", "rollover"])
    keyark(*words)
    assert load_certificates(home / "cm" / "ca-1.pem")[0].subject == ca_name("Issuing CA of example.org 2")


@pytest.mark.parametrize("way_back", [same_root_later, another_key, as_doctor_prints])
async def test_a_ca_whose_certificate_ended_while_everything_was_off_has_its_way_back(
    deployment_folder: Path, way_back: Callable[[Path], None]
) -> None:
    home, root = deployment_folder, own_root(deployment_folder)
    serve_http(home)
    began = root.certificate.not_valid_before_utc.timestamp()
    ended = replace(Validity.of(root.certificate), not_after=int(began) + 1)
    own = request_of(home)
    short = [issue_ca(root, own, subject=own.subject, validity=ended), root.certificate]
    for path in (home / "ca.pem", home / "cm" / "ca.pem", home / "drm" / "ca.pem"):
        save_certificates(path, short)
    async with (
        running(home) as deployment,
        deployment.client() as client,
    ):  # what it issued can still be revoked
        with pytest.raises(KeyarkError) as caught:
            await client.enroll(common_name="Alice", email="alice@example.org")
        assert caught.value.reason == "ISSUER_VALIDITY"
    way_back(home)
    async with running(home) as deployment:
        people = [await enroll(deployment, name) for name in ("alice", "bob")]
        await check_status(deployment, *people)


async def test_an_answer_that_was_lost_is_given_after_root_transport_key_and_identity_changed(
    deployment_folder: Path,
) -> None:
    home, folder = deployment_folder, EnrollmentFolder(path=deployment_folder.parent / "alice")
    order = EnrollmentOrder(common_name="Alice Example", email="alice@example.org")
    async with running(home) as deployment, deployment.client() as client:
        first = await client.submit(await prepare_in(client, folder, order))
    another_root(home)
    async with running(home) as deployment:
        await rotate(deployment)
    IdentityRenewal(home=home, authority=DeploymentAuthority.load(home / "authority")).renew(
        ["client/enroller", "rm", "cm", "drm"]
    )
    async with running(home) as deployment, deployment.client() as client:
        result = await enroll_into(client, folder, order)
    assert result.signing_serial == serial_text(first.signing_certificate.serial_number)
    assert folder.certificates() == [first.signing_certificate, first.encryption_certificate]
    openssl("verify", "-CAfile", folder.path / "chain.pem", folder.path / "encryption.pem")


def printable(subject: x509.Name) -> x509.Name:
    """The same name as AD CS writes it."""
    return x509.Name([x509.NameAttribute(one.oid, one.value, _type=PRINTABLE) for one in subject])


@asynccontextmanager
async def commanded(deployment: Deployment) -> AsyncIterator[None]:
    """Let the CM take commands as the program does."""
    config = load_config(deployment.folder / "cm" / "cm.toml", CmConfig)
    async with answering(config.store.path, Commands(deployment.services["cm"].commands)):
        yield


def files(home: Path) -> list[bytes]:
    return [(home / path / "ca.pem").read_bytes() for path in (".", "cm", "drm")]


class Renaming:
    """A root that writes names in another string type, or computes key identifiers otherwise."""

    def __init__(self, home: Path) -> None:
        self.home, self.root = home, other_root()

    def install(
        self, *, subject: x509.Name | None = None, key_id: bytes | None = None, is_fresh: bool = False
    ) -> list[x509.Certificate]:
        own = signed(self.home, self.root)
        builder = x509.CertificateBuilder(
            subject_name=subject or own.subject,
            issuer_name=own.issuer,
            public_key=own.public_key(),
            serial_number=own.serial_number,
            not_valid_before=own.not_valid_before_utc.replace(tzinfo=None),
            not_valid_after=own.not_valid_after_utc.replace(tzinfo=None),
        )
        for extension in own.extensions:
            value = extension.value
            if key_id is not None and isinstance(value, x509.SubjectKeyIdentifier):
                value = x509.SubjectKeyIdentifier(key_id)
            builder = builder.add_extension(value, critical=extension.critical)
        changed = builder.sign(self.root.private_key, own.signature_hash_algorithm)  # type: ignore[arg-type]
        return install(self.home, changed, self.root.certificate, is_fresh=is_fresh)


async def test_name_and_key_identifier_may_change_before_the_first_certificate_and_never_after(
    deployment_folder: Path,
) -> None:
    home, renaming = deployment_folder, Renaming(deployment_folder)
    name = request_of(home).subject
    async with running(home) as deployment, commanded(deployment):
        with pytest.raises(CaCertificateError, match="Stop the services"):
            await asyncio.to_thread(renaming.install, subject=printable(name))
    renaming.install(subject=printable(name), key_id=b"\7" * 20, is_fresh=True)
    own = load_certificates(home / "cm" / "ca.pem")[0]
    assert own.subject.public_bytes() == request_of(home).subject.public_bytes() != name.public_bytes()
    assert requested_key_id(request_of(home)) == b"\7" * 20
    async with running(home) as deployment, commanded(deployment):
        person = await enroll(deployment, "alice")
        before = files(home)
        with pytest.raises(
            CaCertificateError, match=r"PrintableString.*UTF8String|UTF8String.*PrintableString"
        ):
            await asyncio.to_thread(renaming.install, subject=name)
    with pytest.raises(CaCertificateError, match=r"PrintableString.*UTF8String|UTF8String.*PrintableString"):
        renaming.install(subject=name)
    with pytest.raises(CaCertificateError, match="has the subject key identifier"):
        renaming.install(key_id=b"\x08" * 20)
    for changes in ({"key_id": b"\x08" * 20}, {"subject": name}, {}):
        with pytest.raises(CaCertificateError, match="but this one has"):
            renaming.install(**changes, is_fresh=True)
    assert files(home) == before
    renaming.install()
    async with running(home) as deployment:
        await check_recovered(deployment, [person])


async def test_a_cm_does_not_start_under_another_name_or_key_id(deployment_folder: Path) -> None:
    """As where somebody copied a chain to the CM's host by hand."""
    home, other = deployment_folder, deployment_folder.parent / "other.pem"
    async with running(home) as deployment:
        await enroll(deployment, "alice")
    kept = (home / "cm" / "ca.pem").read_bytes()
    present = show_key_id(load_certificates(home / "cm" / "ca.pem")[0])
    for changes, told in (
        ({"subject": printable(request_of(home).subject)}, "as PrintableString.* as UTF8String"),
        ({"key_id": b"\7" * 20}, f"{':'.join(['07'] * 20)}.*name {present}"),
    ):
        (home / "cm" / "store").rename(home / "store")
        Renaming(home).install(**changes, is_fresh=True)
        (home / "store").rename(home / "cm" / "store")
        with pytest.raises(IssuerRenamedError, match=told) as caught:
            async with run_cm(load_config(home / "cm" / "cm.toml", CmConfig)):
                pass
        assert ("identifier" in caught.value.message.split(". Restore")[0]) is ("key_id" in changes)
        assert "keyark-cm ca-request" in caught.value.message
        other.write_bytes(kept)
        other.rename(home / "cm" / "ca.pem")
        async with running(home):
            pass
