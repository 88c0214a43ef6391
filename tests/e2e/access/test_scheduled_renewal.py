"""`keyark up --renew` renews services that end soon, at the start and again; nobody else, and nothing stops for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cryptography.x509.oid import ExtendedKeyUsageOID

from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.identities import IdentityRenewal
from keyark.deployment.scheduled import renewing_services
from keyark.x509.certificates import load_certificates
from tests.support.running.processes import init_home, keyark, up
from tests.support.stories.attacks import another_ca, forge_identity

MONTH = 30 * 86_400
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def end_soon(folder: Path, role: str, **options: object) -> None:
    made = forge_identity(
        folder,
        uris=[f"spiffe://example.org/{role}"],
        dns=[f"{role}.example.org"],
        purposes=BOTH,
        seconds=3600,
        **options,
    )
    (folder / role / "identity.pem").write_bytes(made.certificate)
    (folder / role / "identity-key.pem").write_bytes(made.private_key)


def serial(path: Path) -> int:
    return load_certificates(path)[0].serial_number


def renewal(folder: Path) -> IdentityRenewal:
    return IdentityRenewal(home=folder, authority=DeploymentAuthority.load(folder / "authority"))


async def test_services_that_end_soon_are_renewed_at_once_and_again(deployment_folder: Path) -> None:
    end_soon(deployment_folder, "rm")
    said: asyncio.Queue[str] = asyncio.Queue()
    others = {role: serial(deployment_folder / role / "identity.pem") for role in ("cm", "drm")}
    scheduled = renewing_services(renewal(deployment_folder), within=MONTH, say=said.put_nowait, every=0.01)
    async with asyncio.timeout(60), scheduled:
        assert said.get_nowait().startswith("rm renewed; it is not running")
        before = serial(deployment_folder / "rm" / "identity.pem")
        end_soon(deployment_folder, "rm")
        assert (await said.get()).startswith("rm renewed")
    assert serial(deployment_folder / "rm" / "identity.pem") != before
    assert {role: serial(deployment_folder / role / "identity.pem") for role in others} == others


async def test_what_cannot_be_renewed_is_told_and_ends_nothing(deployment_folder: Path) -> None:
    end_soon(deployment_folder, "rm", authority=another_ca(deployment_folder))
    said: list[str] = []
    before = serial(deployment_folder / "rm" / "identity.pem")
    async with renewing_services(renewal(deployment_folder), within=MONTH, say=said.append):
        assert len(said) == 1
        assert "not from this internal CA" in said[0]
    assert serial(deployment_folder / "rm" / "identity.pem") == before


async def test_people_are_not_renewed_by_it(deployment_folder: Path) -> None:
    path = deployment_folder / "identities" / "client" / "enroller" / "cert.pem"
    made = forge_identity(deployment_folder, uris=["spiffe://example.org/client/enroller"], seconds=3600)
    path.write_bytes(made.certificate)
    said: list[str] = []
    async with renewing_services(renewal(deployment_folder), within=MONTH, say=said.append):
        assert said == []
    assert path.read_bytes() == made.certificate


def test_up_renews_before_it_starts_and_needs_the_authority(tmp_path: Path) -> None:
    folder = tmp_path / "deployment"
    init_home(folder)
    end_soon(folder, "cm")
    before = serial(folder / "cm" / "identity.pem")
    with up(folder, "--renew", "30d"):
        assert serial(folder / "cm" / "identity.pem") != before
        keyark("enroll", "--home", folder, "--name", "A", "--email", "a@example.org", "--out", tmp_path / "a")
    keyark("up", folder, "--renew", "soon", code=2)
    (folder / "authority").rename(tmp_path / "offline")
    assert "is not an authority's folder" in keyark("up", folder, "--renew", "30d", code=1).stderr
