"""The internal CA ends, and with it every identity and transport certificate: the way back, from a stopped state."""

from __future__ import annotations

import re
import shlex
import shutil
import time
from pathlib import Path

import pytest
from cryptography import x509

from keyark.client.access.home import Home
from keyark.client.access.passwords import no_password
from keyark.client.audit.doctor import examine
from keyark.client.audit.findings import Examination, Finding, Severity
from keyark.custody.agents import AgentShareKey
from keyark.deployment.access.agents import sign_share_key_again
from keyark.deployment.access.authority import DeploymentAuthority, InternalCaEndsError
from keyark.deployment.access.identities import IdentityRenewal
from keyark.deployment.access.internal_ca import InternalCaRenewal
from keyark.deployment.access.revocation import IdentityRevocation
from keyark.errors import KeyarkError
from keyark.identity.spiffe import SpiffeId
from keyark.keys.private_keys import encode_private_key, load_private_key
from keyark.x509.certificates import Validity, load_certificates, save_certificates
from tests.support.running.deployment import edit, running
from tests.support.running.processes import keyark, run_printed
from tests.support.stories.ageing import DAY, YEAR, age, anchors_of
from tests.support.stories.attacks import another_ca, internal_ca
from tests.support.stories.recovering import REASON, agents, approve, drm_log, identity_file, lose_key, state
from tests.support.stories.restoring import told_by_check

HOUR = 3600


async def look(folder: Path, *, within: int = 30 * DAY) -> list[Finding]:
    """What the doctor finds."""
    examination = Examination(home=Home.load(folder), password=no_password, now=time.time, within=within)
    return [finding async for finding in examine(examination)]


def ended(found: list[Finding]) -> list[str]:
    return [finding.subject for finding in found if "certificate ended" in finding.text]


def renew(folder: Path) -> None:
    InternalCaRenewal(authority=DeploymentAuthority.load(folder / "authority"), home=folder).renew()


async def test_a_deployment_whose_internal_ca_ended_goes_on_by_the_commands_that_doctor_prints(
    deployment_folder: Path,
) -> None:
    """P3: keys of before are recovered; nobody's key, quorum or share was made anew."""
    folder = deployment_folder
    async with running(folder) as deployment:
        lost = await lose_key(deployment)
    age(folder, left=-HOUR)
    async with running(folder) as deployment:  # it starts, and no call succeeds
        with pytest.raises(KeyarkError):
            await lose_key(deployment, email="b@example.org")
    with pytest.raises(InternalCaEndsError, match="keyark authority renew"):
        IdentityRenewal(home=folder, authority=DeploymentAuthority.load(folder / "authority")).renew(["rm"])
    found = await look(folder)
    subjects = ended(found)
    assert subjects[0] == "internal CA"
    assert {"identity of rm", "identity of cm", "identity of drm", "identity of agent/bob"} < {*subjects}
    assert subjects[-1] == "transport key"
    for finding in found:
        if finding.subject in subjects:
            await run_printed(finding.command)
    assert ended(await look(folder)) == []
    async with running(folder) as deployment:
        assert await look(folder) == []
        await lose_key(deployment, email="b@example.org")
        async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            await approve(asked.ceremony_id, bob, carol)
            (recovered,) = await alice.collect(asked.ceremony_id)
            keys = [share_key(folder, name) for name in ("carol", "bob", "alice")]
            change = await alice.change_agents(keys, 2, reason="the files carry the certificates of now")
            assert state(await approve(change.ceremony_id, bob, carol)) == "COMPLETED"
        assert recovered.private_key == lost.private_key


def share_key(folder: Path, agent: str) -> AgentShareKey:
    return AgentShareKey.from_json(identity_file(folder, agent, "share-key.json").read_text())


@pytest.mark.parametrize("password", [None, b"a password of its own"])
def test_an_agents_public_file_follows_its_certificate(
    deployment_folder: Path, password: bytes | None
) -> None:
    """It ended with the certificate, and then the agent could be named in no change and no pins."""
    folder = identity_file(deployment_folder, "bob", "key.pem").parent
    anchor = age(deployment_folder, left=-HOUR).certificate
    before, key = share_key(deployment_folder, "bob"), load_private_key(folder / "key.pem")
    if password:
        (folder / "key.pem").write_bytes(encode_private_key(key, password=password))
    with pytest.raises(KeyarkError) as refused:
        before.verify(anchor)
    assert refused.value.reason == "CERTIFICATE_EXPIRED"
    renew(deployment_folder)
    authority = DeploymentAuthority.load(deployment_folder / "authority")
    IdentityRenewal(home=deployment_folder, authority=authority).renew(["agent/bob"])
    after = share_key(deployment_folder, "bob")
    assert after.verify(authority.internal.certificate).to_bytes() == before.public_key
    assert (after.signature == before.signature) is bool(password)
    # one who got the certificate as a file
    identity_file(deployment_folder, "bob", "share-key.json").write_text(before.to_json())
    key = load_private_key(folder / "key.pem", ask_password=lambda: password or b"")
    sign_share_key_again(folder, key, ask_password=lambda: b"not asked for: it is not encrypted")
    after = share_key(deployment_folder, "bob")
    assert after.verify(authority.internal.certificate).to_bytes() == before.public_key


def test_a_share_key_of_somebody_else_is_not_certified_anew(deployment_folder: Path) -> None:
    alice, bob = (identity_file(deployment_folder, name, "share-key.json") for name in ("alice", "bob"))
    foreign = alice.read_bytes()
    bob.write_bytes(foreign)
    authority = DeploymentAuthority.load(deployment_folder / "authority")
    (told,) = IdentityRenewal(home=deployment_folder, authority=authority).renew(["agent/bob"])
    assert "its share-key.json was not renewed" in told.note
    assert bob.read_bytes() == foreign


async def test_the_renewed_certificate_stands_for_the_same_ca_and_longer(deployment_folder: Path) -> None:
    folder, stranger = deployment_folder, another_ca(deployment_folder).certificate
    before = age(folder, left=YEAR).certificate
    save_certificates(folder / "rm" / "trust-anchor.pem", [before, stranger])  # a second anchor stays
    renew(folder)
    first, *others = [load_certificates(path) for path in anchors_of(folder)]
    (after,) = first
    assert others == [[after], [after, stranger], [after], [after]]
    assert after.subject.public_bytes() == before.subject.public_bytes()
    for extension in before.extensions:
        assert after.extensions.get_extension_for_oid(extension.oid) == extension
    assert len([*after.extensions]) == len([*before.extensions])
    assert after.public_key() == before.public_key()
    assert after.serial_number != before.serial_number
    was, now = Validity.of(before), Validity.of(after)
    assert now.not_before == was.not_before
    assert now.not_after - time.time() > 14 * YEAR


async def test_what_was_signed_before_goes_on_and_who_has_the_older_certificate_too(
    deployment_folder: Path,
) -> None:
    """One machine after the other gets the file; an approval of before the renewal counts after it."""
    folder = deployment_folder
    age(folder, left=10 * DAY)
    elsewhere = folder.parent / "elsewhere.pem"
    shutil.copy(folder / "rm" / "trust-anchor.pem", elsewhere)
    async with running(folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob") as (alice, bob):
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            await approve(asked.ceremony_id, bob)
    renew(folder)
    shutil.copy(elsewhere, folder / "rm" / "trust-anchor.pem")
    authority = DeploymentAuthority.load(folder / "authority")
    IdentityRenewal(home=folder, authority=authority).renew(["cm", "client/enroller"])
    assert Validity.of(load_certificates(folder / "cm" / "identity.pem")[0]).not_after > time.time() + YEAR
    async with running(folder) as deployment:
        await lose_key(deployment, email="b@example.org")
        async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
            await approve(asked.ceremony_id, bob, carol)  # bob's share was forgotten with the restart
            assert (await alice.collect(asked.ceremony_id))[0].private_key == lost.private_key


async def test_revoked_stays_revoked_and_the_list_lives_as_long_as_the_ca(deployment_folder: Path) -> None:
    folder = deployment_folder
    age(folder, left=10 * DAY)
    authority = DeploymentAuthority.load(folder / "authority")
    IdentityRevocation(authority=authority, home=folder).revoke(
        ["client/enroller"], x509.ReasonFlags.key_compromise
    )
    list_file = folder / "drm" / "revoked-identities.crl"
    crl = x509.load_pem_x509_crl(list_file.read_bytes())
    async with running(folder):
        pass  # the services remember the list
    renew(folder)
    before, crl = crl, x509.load_pem_x509_crl(list_file.read_bytes())
    assert crl != before
    assert crl.next_update_utc == internal_ca(folder).certificate.not_valid_after_utc
    assert {one.serial_number for one in crl} == {one.serial_number for one in before} != set()
    async with running(folder) as deployment:
        with pytest.raises(KeyarkError) as refused:
            await lose_key(deployment)
        assert refused.value.reason == "IDENTITY_REVOKED"
        assert "IDENTITIES_REVOKED" in [name for name, _, _ in await drm_log(deployment)]


async def test_its_end_is_told_as_long_before_as_identities_live(deployment_folder: Path) -> None:
    folder = deployment_folder
    for left, told in ((2 * YEAR + 10 * DAY, False), (2 * YEAR - 10 * DAY, True)):
        age(folder, left=left)
        found = [f for f in await look(folder) if f.subject == "internal CA"]
        assert [f.severity for f in found] == [Severity.WARNING] * told
    (finding,) = found
    assert shlex.split(finding.command, comments=True) == [
        "keyark",
        "authority",
        "renew",
        "--home",
        str(folder),
    ]
    (folder / "authority").rename(folder.parent / "authority")
    (finding,) = [f for f in await look(folder) if f.subject == "internal CA"]
    assert finding.command.startswith("keyark authority renew --authority AUTHORITY")


def test_on_a_machine_of_its_own_the_authority_is_renewed_and_the_file_is_carried(
    deployment_folder: Path,
) -> None:
    folder, apart = deployment_folder, deployment_folder.parent / "authority"
    age(folder, left=-HOUR)
    assert re.search("^internal CA: ended on .*authority renew", told_by_check(folder), re.MULTILINE)
    (folder / "authority").rename(apart)
    request = folder / "drm" / "transport-keys" / "1" / "transport.csr"
    signing = ("identities", "issue", "drm/transport", request, "--authority", apart)
    told = keyark(*signing, "--out", folder / "t.pem", code=1).stderr
    assert "keyark authority renew" in told
    told = keyark("authority", "renew", "--authority", apart).stdout
    assert f"copy {apart / 'internal-ca.pem'} over the trust anchor" in told
    keyark(*signing, "--out", folder / "t.pem")
    for path in anchors_of(folder)[1:]:
        shutil.copy(apart / "internal-ca.pem", path)
    assert "internal CA: ended" not in told_by_check(folder)
    authority = DeploymentAuthority.load(apart)
    authority.sign_identity(folder / "rm" / "identity.csr", SpiffeId("example.org", "rm"), folder / "rm.pem")


def test_nothing_is_changed_where_a_service_cannot_be_read(deployment_folder: Path) -> None:
    before = age(deployment_folder, left=DAY).certificate
    edit(deployment_folder / "rm" / "rm.toml", "trust_anchor =", "anchor =")
    with pytest.raises(KeyarkError, match="trust_anchor"):
        renew(deployment_folder)
    assert all(load_certificates(path) == [before] for path in anchors_of(deployment_folder))
