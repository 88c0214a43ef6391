"""A home follows its deployment by itself, under the internal CA's signature; a service's word changes nothing."""

from __future__ import annotations

import base64
import logging
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyark.client import ApprovalClient
from keyark.client.access.bundles import create_home
from keyark.client.access.home import Home
from keyark.client.access.sessions import open_session
from keyark.client.enrollment.client import EnrollmentClient
from keyark.config import load_config
from keyark.contexts import context
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.bundle import BundleSource, publish_bundle, sign_bundle
from keyark.identity.bundles import BUNDLE, LABEL, SIGNATURE, Bundle
from keyark.identity.certificates import fingerprint
from keyark.identity.revoked import RevokedIdentities
from keyark.keys.key_types import KeyType
from keyark.keys.private_keys import load_private_key, save_private_key
from keyark.keys.signatures import sign_message
from keyark.rpc.calling.retries import NO_RETRIES
from keyark.rpc.identities import PeerReader
from keyark.rpc.serving.server import ServedService
from keyark.service.program.served_bundle import METHOD, READERS, DeploymentServicer, ServedBundle
from keyark.v1 import deployment_pb2
from keyark.v1.deployment_pb2_grpc import add_DeploymentServiceServicer_to_server
from keyark.x509.certificates import encode_pem_certificates, load_certificates
from rm_service.__main__ import PROGRAM
from rm_service.config import RmConfig
from tests.support.running.deployment import Deployment
from tests.support.running.rpc import Scripted, serving
from tests.support.stories.relays import service_identity


def sign(folder: Path, **parts: str) -> Bundle:
    """Sign a bundle of a deployment as its operator does, and put it beside the services."""
    authority = DeploymentAuthority.load(folder / "authority")
    source = BundleSource.of_home(folder)
    return publish_bundle(folder, BundleSource(**{**vars(source), **parts}), authority)


@pytest.fixture
def home(deployment: Deployment, tmp_path: Path) -> Path:
    """The home of a client, an officer and an auditor, as the deployment is when they get it."""
    bundle = sign(deployment.folder)
    create_home(tmp_path / "home", bundle, believed=bundle.fingerprints[0])
    shutil.copytree(deployment.folder / "identities", tmp_path / "home" / "identities")
    return tmp_path / "home"


def config(home: Path) -> dict[str, object]:
    return dict(Home.load(home).config)


@pytest.mark.parametrize("role", ["rm", "cm", "drm"])
async def test_a_session_takes_the_newest_bundle_from_any_service(
    deployment: Deployment, home: Path, role: str
) -> None:
    cm = f"{deployment.home().config.cm}, cm.example.org:7711"
    bundle = sign(deployment.folder, cm=cm)
    async with open_session(home, role, identity="auditor/auditor", retries=NO_RETRIES) as session:
        assert session.home.config.cm == cm
    assert config(home)["cm"] == cm
    assert (home / BUNDLE).read_bytes() == bundle.data


async def test_a_client_finds_a_service_that_moved_by_those_that_did_not(
    deployment: Deployment, home: Path
) -> None:
    text = (home / "keyark.toml").read_text()
    (home / "keyark.toml").write_text(re.sub(r'^rm = ".*"$', 'rm = "127.0.0.1:1"', text, flags=re.MULTILINE))
    rm = deployment.home().config.rm
    sign(deployment.folder, rm=f"{rm}, 127.0.0.1:2")
    async with EnrollmentClient.open(home, retries=NO_RETRIES) as client:
        enrolled = await client.enroll(
            common_name="Alice", email="alice@example.org", signing_key_type=KeyType.EC_P256
        )
    assert enrolled.signing_certificate is not None
    assert config(home)["rm"] == f"{rm}, 127.0.0.1:2"


async def test_an_officers_client_follows_too(deployment: Deployment, home: Path) -> None:
    rm = f"{deployment.home().config.rm}, 127.0.0.1:2"
    sign(deployment.folder, rm=rm)
    async with ApprovalClient.open(home, identity="officer/officer", retries=NO_RETRIES) as officer:
        assert [enrollment async for enrollment in officer.list()] == []
    assert config(home)["rm"] == rm


async def test_a_home_without_a_bundle_stays_as_somebody_wrote_it(deployment: Deployment, home: Path) -> None:
    (home / BUNDLE).unlink()
    before = config(home)
    sign(deployment.folder, cm="127.0.0.1:2")
    async with open_session(home, "rm", identity="auditor/auditor", retries=NO_RETRIES):
        pass
    assert config(home) == before


async def test_the_password_is_asked_once_though_the_channel_is_opened_anew(
    deployment: Deployment, home: Path
) -> None:
    sign(deployment.folder, cm=f"{deployment.home().config.cm}, 127.0.0.1:2")
    asked = list[Path]()

    key = home / "identities/auditor/auditor/key.pem"
    loaded = load_private_key(key)
    key.unlink()
    save_private_key(key, loaded, password=b"a long password")

    def typed(path: Path) -> bytes:
        asked.append(path)
        return b"a long password"

    async with open_session(home, "rm", identity="auditor/auditor", password=typed, retries=NO_RETRIES):
        pass
    assert asked == [key]


@dataclass
class Hostile:
    """Hands out whatever a test wants."""

    data: bytes

    def newer_than(self, _: int) -> bytes:
        return self.data


@asynccontextmanager
async def hostile_rm(folder: Path, home: Path, data: bytes) -> AsyncIterator[None]:
    """An RM with the real one's identity that hands something else out; the home calls it."""
    service = ServedService(
        descriptor=deployment_pb2.DESCRIPTOR.services_by_name["DeploymentService"],
        add=add_DeploymentServiceServicer_to_server,
        servicer=DeploymentServicer(Hostile(data)),
    )
    revoked = RevokedIdentities(load_certificates(folder / "trust-anchor.pem"))
    async with serving(
        Scripted(),
        present=lambda: service_identity(folder, "rm"),
        services=[service],
        allow={METHOD: set(READERS)},
        peers=PeerReader(lambda: int(time.time()), revoked),
    ) as server:
        text = (home / "keyark.toml").read_text()
        address = f'rm = "127.0.0.1:{server.port}"'
        (home / "keyark.toml").write_text(re.sub(r'^rm = ".*"$', address, text, flags=re.MULTILINE))
        yield


def another_cas(folder: Path, tmp_path: Path) -> bytes:
    """A later one in which another internal CA of the same trust domain stands first, and which that one signed."""
    authority = DeploymentAuthority.create(
        tmp_path / "other", trust_domain="example.org", root_key_type=KeyType.EC_P256, key_password=None
    )
    data = sign(folder).data.rpartition(SIGNATURE.encode())[0]
    anchor = encode_pem_certificates([authority.internal.certificate])
    body = data.replace(b"trust_anchor = '''\n", b"trust_anchor = '''\n" + anchor, 1)
    signature = sign_message(authority.internal.private_key, context(LABEL, body))
    forged = body + f'{SIGNATURE}{base64.b64encode(signature).decode()}"\n'.encode()
    Bundle.parse(forged).verify([fingerprint(authority.internal.certificate)])
    return forged


def altered(folder: Path, tmp_path: Path) -> bytes:
    """A later one with an address that the internal CA did not sign."""
    data = sign_bundle(
        BundleSource.of_home(folder), DeploymentAuthority.load(folder / "authority"), tmp_path / "true.toml"
    ).data
    return data.replace(b'\ncm = "', b'\ncm = "127.0.0.1:3, ', 1)


def older(folder: Path, tmp_path: Path) -> bytes:
    """One that the internal CA signed a while ago."""
    data = (tmp_path / "home" / BUNDLE).read_bytes()
    number = Bundle.parse(data).content.number
    sign(folder)
    bundle = sign(folder)
    (tmp_path / "home" / BUNDLE).write_bytes(bundle.data)
    assert bundle.content.number > number
    return data


def garbage(folder: Path, tmp_path: Path) -> bytes:
    return b"no bundle"


@pytest.mark.parametrize("make", [another_cas, altered, older, garbage])
async def test_what_a_hostile_service_hands_out_changes_nothing(
    deployment: Deployment, home: Path, tmp_path: Path, make: object, caplog: pytest.LogCaptureFixture
) -> None:
    data = make(deployment.folder, tmp_path)  # type: ignore[operator]
    async with hostile_rm(deployment.folder, home, data):
        before = {path: path.read_bytes() for path in home.iterdir() if path.is_file()}
        with caplog.at_level(logging.WARNING):
            async with open_session(home, "rm", identity="auditor/auditor", retries=NO_RETRIES):
                pass
        assert {path: path.read_bytes() for path in home.iterdir() if path.is_file()} == before
    assert "a later bundle of the deployment was not taken" in caplog.text


def test_a_service_hands_out_what_the_internal_ca_signed_alone_and_keeps_it(
    deployment_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, path = sign(deployment_folder), deployment_folder / "rm" / BUNDLE
    served = ServedBundle(path, lambda: load_certificates(deployment_folder / "trust-anchor.pem"))
    assert served.newer_than(0) == bundle.data
    assert served.newer_than(bundle.content.number) == b""
    later = sign(deployment_folder)
    path.write_bytes(later.data.replace(b'\ncm = "', b'\ncm = "127.0.0.1:3, ', 1))
    assert served.newer_than(0) == bundle.data
    assert "is not handed out" in caplog.text
    path.unlink()
    assert served.newer_than(0) == bundle.data
    path.write_bytes(later.data)
    assert served.newer_than(bundle.content.number) == later.data


def test_a_service_without_a_bundle_hands_none_out_and_check_says_so(deployment_folder: Path) -> None:
    path = deployment_folder / "rm" / BUNDLE
    path.unlink()
    anchors = load_certificates(deployment_folder / "trust-anchor.pem")
    assert ServedBundle(path, lambda: anchors).newer_than(0) == b""
    config = load_config(deployment_folder / "rm" / "rm.toml", RmConfig)
    assert any("none; copy the newest" in line for line in PROGRAM.check(config))
