"""A gRPC server with a servicer of the test's own, over real mutual TLS on loopback."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from keyark.identity.revoked import RevokedIdentities
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType
from keyark.keys.private_keys import encode_private_key
from keyark.meters import Meters
from keyark.rpc.calling.channels import Channel, open_channel
from keyark.rpc.identities import LocalIdentity, PeerReader
from keyark.rpc.serving.budgets import Budgets
from keyark.rpc.serving.server import ServedService, Server, build_server
from keyark.v1 import audit_pb2
from keyark.v1.audit_pb2_grpc import (
    AuditServiceServicer,
    AuditServiceStub,
    add_AuditServiceServicer_to_server,
)
from keyark.x509.authority import Authority, ca_name, create_internal_ca
from keyark.x509.certificates import Validity, encode_pem_certificates, load_pem_certificates
from keyark.x509.crl_entries import encode_entry
from keyark.x509.crls import CrlContent, CrlIssuer
from keyark.x509.serials import encode_serial
from tests.support.keys.pki import TRUST_DOMAIN, identity_certificate, private_key

DAY = 86_400
METHODS = ("GetCheckpoint", "GetConsistencyProof", "GetInclusionProof", "CosignCheckpoint", "ListEntries")


@cache
def current_ca() -> Authority:
    """An internal CA that began a month ago."""
    validity = Validity.starting(int(time.time()), lifetime_seconds=365 * DAY, backdate_seconds=30 * DAY)
    return create_internal_ca(
        private_key(KeyType.EC_P256, 902), subject=ca_name("Internal CA"), validity=validity
    )


def identity(path: str, *, number: int = 903, **options: Any) -> LocalIdentity:
    """An identity of the trust domain that is valid now."""
    key = private_key(KeyType.EC_P256, number)
    validity = Validity.starting(int(time.time()), lifetime_seconds=DAY)
    certificate = identity_certificate(
        path, key=key, **{"authority": current_ca(), "validity": validity, **options}
    )
    return LocalIdentity(
        spiffe_id=SpiffeId(TRUST_DOMAIN, path),
        private_key=encode_private_key(key),
        certificate=encode_pem_certificates([certificate]),
        trust_anchor=encode_pem_certificates([current_ca().certificate]),
    )


def revoked_identities(*revoked: LocalIdentity, number: int = 1) -> RevokedIdentities:
    """What a service knows once it took a list of these."""
    identities = RevokedIdentities([current_ca().certificate])
    if revoked:
        identities.take(identities.newer(identity_list(*map(serial_of, revoked), number=number)))
    return identities


def identity_list(*serials: int, number: int = 1, authority: Authority | None = None) -> bytes:
    """A list of revoked identities in DER, which the internal CA signed."""
    authority, now = authority or current_ca(), int(time.time())
    issuer = CrlIssuer(certificate=authority.certificate, private_key=authority.private_key)
    entries = [
        encode_entry(encode_serial(serial), revocation_time=now, reason=1, invalidity_time=0)
        for serial in serials
    ]
    content = CrlContent(number=number, this_update=now, next_update=now + DAY, entries=b"".join(entries))
    return issuer.issue(content)


def serial_of(identity: LocalIdentity) -> int:
    """The serial number of an identity's certificate."""
    return load_pem_certificates(identity.certificate)[0].serial_number


def budgets(*, calls: int = 1000, megabytes: int = 256, readers: int = 64, streams: int = 64) -> Budgets:
    """What the callers of a test's server share."""
    return Budgets.of(max_calls=calls, max_bytes=megabytes << 20, max_readers=readers, max_streams=streams)


@dataclass
class Scripted(AuditServiceServicer):
    """Answers GetCheckpoint with what a test put into ``answer``: bytes, an exception, or an awaitable function."""

    answer: Any = b"checkpoint"
    rejected: list[tuple[str, str, str]] = field(default_factory=list)

    async def GetCheckpoint(self, request, context):
        answer = await self.answer() if callable(self.answer) else self.answer
        if isinstance(answer, BaseException):
            raise answer
        return audit_pb2.GetCheckpointResponse(checkpoint=answer)

    async def GetConsistencyProof(self, request, context):
        return audit_pb2.GetConsistencyProofResponse()

    async def GetInclusionProof(self, request, context):
        return audit_pb2.GetInclusionProofResponse()

    async def ListEntries(self, request, context):
        return audit_pb2.ListEntriesResponse()

    async def on_rejected(self, caller, method, error):
        self.rejected.append((str(caller), method, error.reason))


@asynccontextmanager
async def serving(servicer: Scripted, **options: Any) -> AsyncIterator[Server]:
    """Serve as the DRM; auditors may call."""
    service = ServedService(
        descriptor=audit_pb2.DESCRIPTOR.services_by_name["AuditService"],
        add=add_AuditServiceServicer_to_server,
        servicer=servicer,
    )
    settings = {
        "present": lambda: identity("drm", number=904),
        "address": "127.0.0.1:0",
        "services": [service],
        "allow": {f"/keyark.v1.AuditService/{method}": {"auditor"} for method in METHODS},
        "peers": PeerReader(lambda: int(time.time()), revoked_identities()),
        "budgets": budgets(),
        "on_rejected": servicer.on_rejected,
        "meters": Meters(Path()),
        **options,
    }
    server = build_server(**settings)
    await server.start()
    try:
        yield server
    finally:
        await server.drain(1)


@asynccontextmanager
async def channel_to(server: Server, who: LocalIdentity, *, role: str = "drm") -> AsyncIterator[Channel]:
    """A channel of an identity to the server, expecting the service of ``role``."""
    channel = open_channel(f"127.0.0.1:{server.port}", who, server_role=role, trust_domain=TRUST_DOMAIN)
    try:
        yield channel
    finally:
        await channel.close()


def stub(channel: Channel) -> AuditServiceStub:
    """The service's stub."""
    return AuditServiceStub(channel)
