"""The archival process end to end: dual certificates, the encryption key archived (P1, P2, P9)."""

from __future__ import annotations

import pytest

from keyark.client import KeyDelivery
from tests.support.deployment import Deployment


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
