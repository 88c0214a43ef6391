"""The archival process end to end: dual certificates, the encryption key archived (P1, P2, P9)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from keyark.client import KeyDelivery
from keyark.client.access.sessions import open_session
from keyark.client.administration.lists import list_certificates
from keyark.client.administration.revocation import revoke_certificates
from keyark.client.enrollment.folder import EnrollmentFolder
from keyark.client.enrollment.prepared import PreparedEnrollment
from keyark.client.enrollment.single import EnrollmentOrder, enroll_into
from keyark.errors import KeyarkError, NotFoundError
from keyark.keys.key_types import KeyType
from keyark.v1.certificates_pb2 import CertificateFilter, CertificateState
from keyark.v1.revocation_pb2 import RevocationReason
from tests.e2e.test_direct_attacks import HostileRm
from tests.support.running.deployment import Deployment, running
from tests.support.stories.enrolling import enrolling, holdings


@pytest.mark.parametrize("delivery", list(KeyDelivery))
async def test_a_user_gets_two_certificates_and_a_receipt(
    deployment: Deployment, delivery: KeyDelivery
) -> None:
    async with deployment.client() as client:
        prepared = await client.prepare(common_name="Alice Example", email="alice@example.org")
        enrolled = await client.submit(prepared, delivery=delivery)
        again = await client.submit(prepared)
    assert enrolled.receipt is not None
    assert enrolled.receipt.event.encryption_spki_sha256 == prepared.statement.encryption_spki_sha256
    assert again.signing_certificate == enrolled.signing_certificate
    assert again.encryption_certificate == enrolled.encryption_certificate


PROFILES = """
[profiles.strict]
base = "smime-strict"
crl_urls = ["http://pki.example.org/ca.crl"]

[profiles.staff]
base = "user"
subject = ["C=DE", "O=Beispiel GmbH", "CN={common_name}", "emailAddress={email}"]
alternative_names = ["email", "upn"]
signing_extended_key_usage = ["emailProtection", "clientAuth"]
encryption_key_types = ["x25519", "ec-p256"]
"""


async def test_the_profile_says_which_keys_and_what_is_in_the_certificates(deployment_folder: Path) -> None:
    """The form comes from the profile, and the client takes the profile's first key types."""
    with (deployment_folder / "cm" / "cm.toml").open("a") as config:
        config.write(PROFILES)
    async with running(deployment_folder) as deployment, deployment.client() as client:
        made = {
            profile: await client.enroll(
                common_name="Alice Example", email="alice@example.org", profile=profile
            )
            for profile in ("user", "pq", "strict", "staff")
        }
    subjects = {name: one.signing_certificate.subject.rfc4514_string() for name, one in made.items()}
    assert subjects == {
        "user": "CN=Alice Example",
        "pq": "CN=Alice Example",
        "strict": "CN=alice@example.org",
        "staff": "1.2.840.113549.1.9.1=alice@example.org,CN=Alice Example,O=Beispiel GmbH,C=DE",
    }
    kinds = {
        name: (one.statement.signing_key_type, one.statement.encryption_key_type)
        for name, one in made.items()
    }
    assert kinds["pq"] == (KeyType.ML_DSA_65, KeyType.ML_KEM_768)
    assert kinds["staff"] == (KeyType.EC_P256, KeyType.X25519)
    assert all(one.receipt is not None for one in made.values())


async def test_who_only_signs_gets_one_certificate_and_nothing_is_archived(
    deployment: Deployment, tmp_path: Path
) -> None:
    folder = EnrollmentFolder(path=tmp_path / "signer")
    order = EnrollmentOrder(common_name="Sig Ner", email="signer@example.org", profile="signing-only")
    async with deployment.client() as client:
        done = await enroll_into(client, folder, order)
        assert await enroll_into(client, folder, order) == done
        enrolled = await client.submit(await prepared_in(folder))
        renewed = EnrollmentFolder(path=tmp_path / "again")
        await enroll_into(client, renewed, replace(order, present=folder.present()))
    assert (done.encryption_serial, enrolled.encryption, enrolled.receipt) == ("", None, None)
    with pytest.raises(NotFoundError):
        _ = enrolled.encryption_certificate
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "chain.pem", "signing-key.pem", "signing.pem", "statement.bin", "transport.pem",
    ]  # fmt: skip
    held = await holdings(deployment.home())
    assert (held.certificates, held.keys) == (2, 0)
    async with open_session(deployment.home(), "cm", identity="officer/officer") as officer:
        found = [c async for c in list_certificates(officer, CertificateFilter(email="signer@example.org"))]
        assert {c.pair_serial for c in found} == {b""}
        await revoke_certificates(
            officer, [found[0].serial], reason=RevocationReason.REVOCATION_REASON_SUPERSEDED
        )
        wanted = CertificateFilter(state=CertificateState.CERTIFICATE_STATE_REVOKED)
        assert [c.serial async for c in list_certificates(officer, wanted)] == [found[0].serial]


async def prepared_in(folder: EnrollmentFolder) -> PreparedEnrollment:
    prepared = folder.load()
    assert prepared is not None
    return prepared


async def test_a_profile_gives_neither_more_nor_fewer_certificates_than_it_says(
    deployment: Deployment,
) -> None:
    """P1: no statement without an encryption key gets past archival, and none with one past its prohibition."""
    async with deployment.client() as client, enrolling(deployment.home()) as enroller:
        both = await client.prepare(
            common_name="A",
            email="a@example.org",
            profile="signing-only",
            encryption_key_type=KeyType.EC_P256,
        )
        with pytest.raises(KeyarkError) as refused:
            await client.submit(both)
        assert refused.value.reason == "KEY_TYPE_NOT_PERMITTED"
        rm = HostileRm(deployment, enroller.call)
        alone = enroller.request(fields={"encryption_spki": b""})
        outcome = await rm.issue(alone, b"", None)
        assert outcome.reason in ("KEY_TYPE_NOT_PERMITTED", "RECEIPT_REQUIRED")
        with pytest.raises(AssertionError, match="encryption key"):
            await rm.archived(alone)
        await rm.close()
        (asked,) = await enroller.send(
            enroller.request(fields={"encryption_spki": b"", "profile": "signing-only"})
        )
        assert asked.reason == "ARCHIVAL_FORBIDDEN"
    held = await holdings(deployment.home())
    assert (held.certificates, held.keys) == (0, 0)
