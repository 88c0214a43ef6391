"""P7: whoever stole an identity is refused by every service once it is revoked, over what is open and what is new."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from keyark.client.access.sessions import open_session
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.identities import IdentityRenewal
from keyark.deployment.access.issued import FILE, IssuedIdentities
from keyark.deployment.access.revocation import IdentityRevocation
from keyark.errors import ConfigurationError, NotFoundError
from keyark.files import UnwritableFileError
from keyark.identity.certificates import request_identity
from keyark.identity.files import IdentityFiles
from keyark.identity.revoked import IDENTITY_LIST, IdentityRevokedError
from keyark.identity.spiffe import SpiffeId
from keyark.keys.private_keys import load_private_key
from keyark.rpc.calling.channels import call
from keyark.rpc.calling.pinning import ServiceRevokedError
from keyark.service.program import assembly
from keyark.service.program.initialization import save_request
from keyark.v1 import certificates_pb2
from keyark.v1.certificates_pb2_grpc import CertificateAdminServiceStub
from keyark.x509.authority import CertificateRequestError
from keyark.x509.certificates import encode_pem_certificates, load_certificates
from tests.support.running.deployment import Deployment, edit, running
from tests.support.running.processes import keyark
from tests.support.stories.attacks import TRUST_DOMAIN, another_ca, forge_identity, refusals_of

COMPROMISED = x509.ReasonFlags.key_compromise
SERVICES = ("rm", "cm", "drm")


def revocation(folder: Path, *, home: Path | None = None) -> IdentityRevocation:
    authority = DeploymentAuthority.load(folder / "authority")
    return IdentityRevocation(authority=authority, home=home or folder)


def serials(folder: Path) -> set[int]:
    """What is on a list, read by OpenSSL as any other tool would."""
    data = x509.load_pem_x509_crl((folder / IDENTITY_LIST).read_bytes())
    return {entry.serial_number for entry in data}


def certificate_of(folder: Path, name: str) -> x509.Certificate:
    return load_certificates(folder / "identities" / name / "cert.pem")[0]


async def refresh(deployment: Deployment) -> None:
    """What happens by itself every second."""
    for service in deployment.services.values():
        await service.reloads[1]()


async def test_a_stolen_identity_is_refused_over_its_open_connections_and_every_refusal_is_logged(
    deployment_folder: Path,
) -> None:
    request = certificates_pb2.ListCertificatesRequest()
    async with running(deployment_folder) as deployment, deployment.client() as thief:
        await thief.enroll(common_name="Eve", email="eve@example.org")
        async with open_session(deployment.home(), "cm", identity="officer/officer") as officer:
            listing = CertificateAdminServiceStub(officer.channel).ListCertificates
            await call(listing, request, timeout=10)
            revocation(deployment_folder).revoke(["client/enroller", "officer/officer"], COMPROMISED)
            await refresh(deployment)
            with pytest.raises(IdentityRevokedError):
                await thief.enroll(common_name="Mallory", email="mallory@example.org")
            with pytest.raises(IdentityRevokedError):
                await call(listing, request, timeout=10)
        async with deployment.client() as again:
            with pytest.raises(IdentityRevokedError):
                await again.enroll(common_name="Mallory", email="mallory@example.org")
        refusals = {role: await refusals_of(deployment.home(), role) for role in ("rm", "cm")}
    assert set(refusals["rm"]) == {(f"spiffe://{TRUST_DOMAIN}/client/enroller", "IDENTITY_REVOKED")}
    assert refusals["cm"] == [(f"spiffe://{TRUST_DOMAIN}/officer/officer", "IDENTITY_REVOKED")]
    async with running(deployment_folder) as deployment, deployment.client() as thief:
        with pytest.raises(IdentityRevokedError):
            await thief.enroll(common_name="Mallory", email="mallory@example.org")


async def test_a_stolen_identity_of_the_rm_gets_nothing_from_cm_and_drm(deployment_folder: Path) -> None:
    async with running(deployment_folder) as deployment, deployment.client() as client:
        await client.enroll(common_name="Alice", email="alice@example.org")
        revocation(deployment_folder).revoke(["rm"], COMPROMISED)
        await refresh(deployment)
        with pytest.raises(IdentityRevokedError):
            await client.enroll(common_name="Bob", email="bob@example.org")
        IdentityRenewal(
            home=deployment_folder, authority=DeploymentAuthority.load(deployment_folder / "authority")
        ).authority.replace_identity(
            IdentityFiles(
                key=deployment_folder / "rm" / "identity-key.pem",
                certificate=deployment_folder / "rm" / "identity.pem",
            )
        )
        await deployment.services["rm"].reloads[0]()
        await client.enroll(common_name="Bob", email="bob@example.org")


def test_the_list_goes_to_every_service_and_the_home_and_names_all_certificates_in_force(
    deployment_folder: Path,
) -> None:
    folder = deployment_folder
    authority = DeploymentAuthority.load(folder / "authority")
    first = certificate_of(folder, "client/enroller").serial_number
    files = folder / "identities" / "client" / "enroller"
    authority.replace_identity(IdentityFiles(key=files / "key.pem", certificate=files / "cert.pem"))
    second = certificate_of(folder, "client/enroller").serial_number
    done = keyark("identities", "revoke", "client/enroller", "--reason", "keyCompromise", "--home", folder)
    assert f"{first:x}" in done.stdout
    assert f"{second:x}" in done.stdout
    for place in (folder, folder / "authority", *(folder / role for role in SERVICES)):
        assert serials(place) == {first, second}
    shown = subprocess.run(
        ["openssl", "crl", "-in", folder / IDENTITY_LIST, "-noout", "-text", "-CAfile", folder / "trust-anchor.pem"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "verify OK" in shown.stderr
    assert "Key Compromise" in shown.stdout
    listed = json.loads(keyark("identities", "list", "--home", folder, "--json").stdout)
    assert {one["identity"] for one in listed if one["revoked"]} == {"client/enroller"}
    assert {"rm", "cm", "drm", "agent/alice"} <= {one["identity"] for one in listed if not one["revoked"]}


def test_revoking_again_hands_the_list_out_again_and_numbers_only_grow(deployment_folder: Path) -> None:
    revoke = revocation(deployment_folder).revoke
    assert len(revoke(["agent/alice"], COMPROMISED)) == 1
    (deployment_folder / "cm" / IDENTITY_LIST).unlink()
    edit(deployment_folder / "rm" / "rm.toml", f'"{IDENTITY_LIST}"', '"list.crl"')
    assert revoke(["agent/alice"], COMPROMISED) == []
    assert serials(deployment_folder / "cm") == serials(deployment_folder)
    assert (deployment_folder / "rm" / "list.crl").read_bytes() == (
        deployment_folder / IDENTITY_LIST
    ).read_bytes()
    assert len(revoke(["agent/bob"], x509.ReasonFlags.unspecified)) == 1
    last = x509.load_pem_x509_crl((deployment_folder / IDENTITY_LIST).read_bytes())
    assert last.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 2
    assert len(serials(deployment_folder)) == 2


def test_an_authority_of_an_earlier_release_revokes_what_lies_here_or_is_named(
    deployment_folder: Path,
) -> None:
    alice = certificate_of(deployment_folder, "agent/alice")
    copy = deployment_folder.parent / "alice.pem"
    copy.write_bytes(encode_pem_certificates([alice]))
    (deployment_folder / "authority" / FILE).unlink()
    assert [one.identity for one in revocation(deployment_folder).revoke(["agent/bob"], COMPROMISED)] == [
        "agent/bob"
    ]
    (deployment_folder / "authority" / FILE).unlink()
    elsewhere = IdentityRevocation(
        authority=DeploymentAuthority.load(deployment_folder / "authority"), home=None
    )
    with pytest.raises(NotFoundError, match="--certificate"):
        elsewhere.revoke(["agent/alice"], COMPROMISED)
    assert len(elsewhere.revoke([], COMPROMISED, certificates=[copy])) == 1
    assert alice.serial_number in serials(deployment_folder / "authority")


def test_the_certificate_of_another_ca_and_the_transport_key_are_not_revoked_here(
    deployment_folder: Path, tmp_path: Path
) -> None:
    foreign = forge_identity(
        deployment_folder,
        uris=[f"spiffe://{TRUST_DOMAIN}/client/eve"],
        authority=another_ca(deployment_folder),
    )
    (tmp_path / "eve.pem").write_bytes(foreign.certificate)
    with pytest.raises(CertificateRequestError):
        revocation(deployment_folder).revoke([], COMPROMISED, certificates=[tmp_path / "eve.pem"])
    with pytest.raises(ConfigurationError, match="transport-key retire"):
        revocation(deployment_folder).revoke(["drm/transport"], COMPROMISED)
    with pytest.raises(NotFoundError):
        revocation(deployment_folder).revoke(["client/nobody"], COMPROMISED)
    assert not (deployment_folder / IDENTITY_LIST).exists()


def test_a_revoked_identity_comes_back_with_a_new_key_and_by_name_only(
    deployment_folder: Path, tmp_path: Path
) -> None:
    revocation(deployment_folder).revoke(["client/enroller"], COMPROMISED)
    authority = DeploymentAuthority.load(deployment_folder / "authority")
    renewal = IdentityRenewal(home=deployment_folder, authority=authority)
    assert "client/enroller" not in renewal.due(100 * 365 * 86_400)
    assert "client/enroller" not in renewal.in_force()
    path = deployment_folder / "identities" / "client" / "enroller"
    with pytest.raises(IdentityRevokedError):
        authority.renew_identity(path / "cert.pem")
    identity = SpiffeId(TRUST_DOMAIN, "client/enroller")
    save_request(tmp_path / "stolen.csr", request_identity(load_private_key(path / "key.pem"), identity))
    with pytest.raises(IdentityRevokedError, match="new key"):
        authority.sign_identity(tmp_path / "stolen.csr", identity, tmp_path / "again.pem")
    assert not (tmp_path / "again.pem").exists()
    renewal.renew(["client/enroller"])
    authority.revoked().check(certificate_of(deployment_folder, "client/enroller"))


def test_a_line_that_a_crash_cut_off_is_replaced_and_a_damaged_record_is_not_believed(
    deployment_folder: Path,
) -> None:
    authority = DeploymentAuthority.load(deployment_folder / "authority")
    before = authority.issued.entries()
    record = deployment_folder / "authority" / FILE
    assert record.stat().st_mode & 0o777 == 0o600
    record.write_bytes(record.read_bytes() + b'{"identity": "client/al')
    assert authority.issued.entries() == before
    authority.replace_identity(
        IdentityFiles(
            key=deployment_folder / "rm" / "identity-key.pem",
            certificate=deployment_folder / "rm" / "identity.pem",
        )
    )
    assert authority.issued.entries()[:-1] == before
    record.write_bytes(b"damaged\n" + record.read_bytes())
    with pytest.raises(ConfigurationError, match="damaged"):
        authority.issued.entries()


async def test_the_rm_sends_nothing_to_a_cm_whose_identity_was_revoked(deployment_folder: Path) -> None:
    async with running(deployment_folder) as deployment, deployment.client() as client:
        await client.enroll(common_name="Alice", email="alice@example.org")
        revocation(deployment_folder).revoke(["cm"], COMPROMISED)
        await refresh(deployment)
        with pytest.raises(ServiceRevokedError):
            await client.enroll(common_name="Bob", email="bob@example.org")
        files = IdentityFiles(
            key=deployment_folder / "cm" / "identity-key.pem",
            certificate=deployment_folder / "cm" / "identity.pem",
        )
        DeploymentAuthority.load(deployment_folder / "authority").replace_identity(files)
        await deployment.services["cm"].reloads[0]()
        await client.enroll(common_name="Bob", email="bob@example.org")


async def test_a_running_service_takes_the_list_by_itself(
    deployment_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "IDENTITY_LIST_SECONDS", 0.01)
    request = certificates_pb2.ListCertificatesRequest()
    async with (
        running(deployment_folder) as deployment,
        open_session(deployment.home(), "cm", identity="officer/officer") as officer,
    ):
        listing = CertificateAdminServiceStub(officer.channel).ListCertificates
        await call(listing, request, timeout=10)
        revocation(deployment_folder).revoke(["officer/officer"], COMPROMISED)
        with pytest.raises(IdentityRevokedError):
            while True:
                await call(listing, request, timeout=10)


def test_an_identity_is_not_issued_where_its_record_did_not_fit_on_the_disk(deployment_folder: Path) -> None:
    """The system writes the bytes that fit and says so in the count alone."""
    issued = IssuedIdentities(deployment_folder / "authority")
    (issued.folder / FILE).write_bytes(b"")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(UnwritableFileError, match="No space left"):
            issued.record(certificate_of(deployment_folder, "auditor/auditor"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert issued.entries() == []
    issued.record(certificate_of(deployment_folder, "auditor/auditor"))
    assert len(issued.entries()) == 1
