"""The transport keys that a home knows: those of its transport.pem, and what the DRM's log told of changes since.

The file ``transport-keys`` below the home keeps what transport.pem does not say yet, so that a retired key is refused
after a restart too. It never goes back: of two programs that write it, the one that knows more has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from keyark.client.access.home import Home
from keyark.errors import ConfigurationError
from keyark.files import read_file, write_file
from keyark.folders import alone_in
from keyark.identity.transport import TransportTrust
from keyark.records.v1.trust_pb2 import FollowedTransportKeys as Record
from keyark.rpc.calling.channels import Channel, call
from keyark.transparency.transport_keys import FollowedTransportKeys
from keyark.v1.archive_pb2 import ListTransportKeyChangesRequest
from keyark.v1.archive_pb2_grpc import TransportKeyServiceStub
from keyark.v1.audit_pb2 import TransportKeyChange
from keyark.v1.common_pb2 import TransportCertificate
from keyark.x509.certificates import encode_certificate, load_certificates

FILE: Final = "transport-keys"
MAX_SIZE: Final = 1 << 20
TIMEOUT: Final = 10.0


def pinned_certificates(home: Home) -> list[TransportCertificate]:
    """Return the certificates of the home's transport.pem, the newest first."""
    certificates = load_certificates(home.config.transport)
    return [TransportCertificate(certificate=encode_certificate(one)) for one in certificates]


def known_transport_keys(home: Home) -> FollowedTransportKeys:
    """Return what a home knows; raises ConfigurationError and TransportCertificateError."""
    trust = TransportTrust(anchors=[home.trust_anchor], trust_domain=home.config.trust_domain)
    keys = FollowedTransportKeys(trust, _remembered(home.folder / FILE))
    keys.pin(list(reversed(pinned_certificates(home))))
    return keys


def learn(home: Home, keys: FollowedTransportKeys, changes: Sequence[TransportKeyChange]) -> None:
    """Take up changes of the key in force, and remember them before anything relies on them.

    Raises what ``FollowedTransportKeys.take`` does, and UnwritableFileError where the home cannot be written.
    """
    before = keys.public_keys
    try:
        for change in changes:
            keys.take(change)
    finally:
        if keys.public_keys != before:
            _remember(home, keys)


async def follow_transport_keys(home: Home, channel: Channel) -> None:
    """Ask the DRM, as an agent or auditor, how its transport key changed; raises as ``learn`` does."""
    keys = known_transport_keys(home)
    request = ListTransportKeyChangesRequest(known_key_id=keys.newest_id)
    answer = await call(TransportKeyServiceStub(channel).ListTransportKeyChanges, request, timeout=TIMEOUT)
    learn(home, keys, answer.changes)


async def transport_certificate(channel: Channel) -> TransportCertificate:
    """Return the transport certificate that the DRM serves to an agent or auditor, nothing of it verified."""
    stub = TransportKeyServiceStub(channel)
    answer = await call(stub.ListTransportKeyChanges, ListTransportKeyChangesRequest(), timeout=TIMEOUT)
    return answer.transport_certificate


def _remember(home: Home, keys: FollowedTransportKeys) -> None:
    with alone_in(home.folder):
        stored = _remembered(home.folder / FILE)
        known = set(keys.public_keys)
        if stored.keys and stored.keys[-1].public_key not in known:
            return  # another program has learned of a newer key
        write_file(home.folder / FILE, keys.record.SerializeToString(deterministic=True), mode=0o600)


def _remembered(path: Path) -> Record:
    if not path.exists():
        return Record()
    try:
        return Record.FromString(read_file(path, max_size=MAX_SIZE))
    except DecodeError:
        raise ConfigurationError(
            f"{path} is damaged. Copy the deployment's newest transport.pem into this home, then delete "
            f"{path}."
        ) from None
