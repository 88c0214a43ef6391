"""A transport certificate lives for weeks: it is renewed or rotated in time, and a way leads back where it was not."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from drm_service import subsystem
from drm_service.checking import check
from drm_service.config import DrmConfig
from keyark.client.enrollment.folder import EnrollmentFolder
from keyark.client.enrollment.single import EnrollmentOrder, enroll_into
from keyark.client.trust.receipts import verify_receipt_file
from keyark.config import load_config
from keyark.deployment.transport import TransportKeyRotation
from keyark.errors import KeyarkError
from keyark.x509.certificates import Validity, load_certificates
from tests.support.running.deployment import running
from tests.support.running.processes import init_home, keyark, up
from tests.support.stories.rotation import (
    RETIRED,
    certificate_file,
    certify,
    key_file,
    leaves,
    make,
    rotate,
    sign,
    states,
)

ALICE = {"common_name": "Alice Example", "email": "alice@example.org"}
ORDER = EnrollmentOrder(**ALICE)
DAY = 86_400


def lifetime(path: Path) -> int:
    validity = Validity.of(load_certificates(path)[0])
    return validity.not_after - validity.not_before


def test_transport_certificates_live_for_thirty_days_or_as_the_authority_is_configured(
    deployment_folder: Path,
) -> None:
    path = certificate_file(deployment_folder, 1)
    assert abs(lifetime(path) - 30 * DAY) < 3600
    config = deployment_folder / "authority" / "authority.toml"
    config.write_text(config.read_text().replace("transport_days = 30", "transport_days = 7"))
    TransportKeyRotation(home=deployment_folder).renew()
    assert abs(lifetime(path) - 7 * DAY) < 3600


def test_each_transport_certificate_of_an_authority_begins_later_than_the_one_before(
    deployment_folder: Path,
) -> None:
    """A key that is certified in the second of another one's renewal is known for the younger all the same."""
    path, begins = certificate_file(deployment_folder, 1), []
    for _ in range(3):
        sign(deployment_folder, path.with_name("transport.csr"), path)
        begins.append(Validity.of(load_certificates(path)[0]).not_before)
    assert begins == sorted(set(begins))
    assert begins[-1] <= time.time()


async def test_a_certificate_that_ended_while_the_deployment_was_off_stops_no_start_and_is_renewed_then(
    deployment_folder: Path, tmp_path: Path
) -> None:
    """No key is wrapped to it, old receipts and outcomes verify, and the stopped deployment has its way back."""
    folder = EnrollmentFolder(path=tmp_path / "alice")
    async with running(deployment_folder) as deployment, deployment.client() as client:
        await enroll_into(client, folder, ORDER)
    certify(deployment_folder, ends_in=-1)
    async with running(deployment_folder) as deployment, deployment.client() as client:
        with pytest.raises(KeyarkError) as caught:
            await client.enroll(**ALICE)
        assert caught.value.reason == "CERTIFICATE_EXPIRED"
        assert await states(deployment) == ["OFFERED"]
    verify_receipt_file(folder.path / "receipt.tlog-proof", folder.path / "transport.pem")
    config = load_config(deployment_folder / "drm" / "drm.toml", DrmConfig)
    assert "transport certificate: ended" in "\n".join(await asyncio.to_thread(check, config))
    done = await asyncio.to_thread(TransportKeyRotation(home=deployment_folder).renew)
    assert [line.partition(" ")[0] for line in done] == ["transport", "drm", "rm"]
    async with running(deployment_folder) as deployment, deployment.client() as client:
        await client.enroll(**ALICE)


async def test_an_older_key_is_retired_once_its_certificate_has_ended(
    deployment_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(deployment_folder) as deployment:
        await rotate(deployment)
        assert await states(deployment) == ["OFFERED", "TAKEN"]
    certify(deployment_folder, ends_in=-1)
    monkeypatch.setattr(subsystem, "RETIRING_SECONDS", 0.001)
    async with running(deployment_folder) as deployment, asyncio.timeout(60):
        while (await leaves(deployment))[-1][0] != RETIRED:
            pass  # each look is a call, so the DRM goes on meanwhile
        assert await states(deployment) == ["OFFERED", "RETIRED"]
    assert not key_file(deployment_folder, 1).exists()


async def test_a_key_that_was_certified_before_the_one_in_force_is_not_put_in_its_place(
    deployment_folder: Path,
) -> None:
    """Readers that met the key in force only could not tell it from a retired one; nor could they within a second."""
    certify(deployment_folder, ends_in=DAY, began=200)
    begins = Validity.of(load_certificates(certificate_file(deployment_folder, 1))[0]).not_before
    async with running(deployment_folder) as deployment:
        await make(deployment)
        for not_before in (begins - 1, begins):
            certify(deployment_folder, ends_in=DAY, generation=2, not_before=not_before)
            with pytest.raises(KeyarkError) as caught:
                await deployment.services["drm"].reload()
            assert caught.value.reason == "TRANSPORT_KEY_STATE"
            assert await states(deployment) == ["OFFERED"]
        certify(deployment_folder, ends_in=DAY, began=100, generation=2)
        await deployment.services["drm"].reload()
        assert await states(deployment) == ["OFFERED", "TAKEN"]


async def test_an_older_key_that_was_certified_again_after_the_one_in_force_is_warned_of(
    deployment_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A reader that met only the newer key would take the older one, whose disk was stolen, for its successor."""
    older, newer = (certificate_file(deployment_folder, generation) for generation in (1, 2))
    async with running(deployment_folder) as deployment:
        await rotate(deployment)
        assert "certified again" not in caplog.text
        sign(deployment_folder, older.with_name("transport.csr"), older)
        await deployment.services["drm"].reload()
        assert "transport key 1 was certified again after key 2" in caplog.text
        caplog.clear()
        sign(deployment_folder, newer.with_name("transport.csr"), newer)
        await deployment.services["drm"].reload()
        assert "certified again" not in caplog.text


def test_a_key_is_rotated_in_the_last_third_of_its_certificate_and_renewed_where_the_drm_does_not_run(
    tmp_path: Path,
) -> None:
    home = tmp_path / "deployment"
    init_home(home)
    rotation = TransportKeyRotation(home=home)
    assert rotation.rotate_or_renew_when_due() == []
    certify(home, ends_in=100)
    assert "certified until" in rotation.rotate_or_renew_when_due()[0]
    certify(home, ends_in=100)
    with up(home):  # it renews at its start, before the DRM runs
        assert abs(lifetime(certificate_file(home, 1)) - 30 * DAY) < 3600
        certify(home, ends_in=100)
        assert rotation.rotate_or_renew_when_due() == ["transport key 2 is in force"]
        assert rotation.rotate_or_renew_when_due() == []
        keyark("enroll", "--home", home, "--name", "A", "--email", "a@example.org", "--out", tmp_path / "a")
