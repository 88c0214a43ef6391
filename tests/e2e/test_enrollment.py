"""The archival process end to end: dual certificates, the encryption key archived (P1, P2, P9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyark.client import KeyDelivery
from keyark.pki.key_types import KeyType
from tests.support.deployment import Deployment, running


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
