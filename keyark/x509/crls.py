"""Certificate revocation lists, full and delta (RFC 5280 §5), from entries that are encoded already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from keyark.keys import der as _der
from keyark.keys.key_types import SigningPrivateKey
from keyark.keys.signatures import check_crl_issuer, signature_scheme, tbs_signer

MAX_SHARDS: Final = 256

_VERSION_2: Final = _der.unsigned_integer(b"\x01")


@dataclass(frozen=True, kw_only=True)
class CrlContent:
    """What a list says; ``entries`` are encoded by ``keyark.x509.crl_entries`` and joined, times in seconds UTC.

    ``base_number`` makes it a delta list to the full list of that number. ``urls`` are its issuing distribution
    point, which must then stand in the certificates that it is for; ``delta_urls`` tell where deltas are found.
    """

    number: int
    this_update: int
    next_update: int
    entries: bytes = field(repr=False)
    base_number: int | None = None
    urls: Sequence[str] = ()
    delta_urls: Sequence[str] = ()


class CrlIssuer:
    """Signs lists under one CA certificate; raises IssuerKeyMismatchError and UnsupportedKeyError when it is made."""

    def __init__(self, *, certificate: x509.Certificate, private_key: SigningPrivateKey) -> None:
        check_crl_issuer(certificate, private_key)
        self._sign = tbs_signer(private_key)
        self._algorithm = signature_scheme(private_key).algorithm_identifier
        self._issuer = certificate.subject.public_bytes()
        identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        self._authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)

    def issue(self, content: CrlContent) -> bytes:
        """Return the signed list, DER; a list of nothing has no element of entries, as RFC 5280 §5.1.2.6 asks."""
        tbs = _der.sequence(
            _VERSION_2,
            self._algorithm,
            self._issuer,
            _der.encode_time(content.this_update),
            _der.encode_time(content.next_update),
            _der.sequence(content.entries) if content.entries else b"",
            _der.explicit(0, _der.sequence(*self._extensions(content))),
        )
        return _der.sequence(tbs, self._algorithm, _der.bit_string(self._sign(tbs)))

    def _extensions(self, content: CrlContent) -> Iterator[bytes]:
        yield _extension(self._authority)
        yield _extension(x509.CRLNumber(content.number))
        if content.base_number is not None:
            yield _critical(x509.DeltaCRLIndicator(content.base_number))
        if content.urls:
            yield _critical(
                x509.IssuingDistributionPoint(
                    full_name=[x509.UniformResourceIdentifier(url) for url in content.urls],
                    relative_name=None,
                    only_contains_user_certs=False,
                    only_contains_ca_certs=False,
                    only_some_reasons=None,
                    indirect_crl=False,
                    only_contains_attribute_certs=False,
                )
            )
        if content.delta_urls:
            points = [
                x509.DistributionPoint(
                    full_name=[x509.UniformResourceIdentifier(url)],
                    relative_name=None,
                    reasons=None,
                    crl_issuer=None,
                )
                for url in content.delta_urls
            ]
            yield _extension(x509.FreshestCRL(points))


def shard_of(serial: bytes, shards: int) -> int:
    """Return the shard of a serial number among a power of two of at most MAX_SHARDS: its last bits."""
    return serial[-1] % shards


def _extension(value: x509.ExtensionType) -> bytes:
    return _der.sequence(_oid(value), _der.octet_string(value.public_bytes()))


def _critical(value: x509.ExtensionType) -> bytes:
    return _der.sequence(_oid(value), _der.TRUE, _der.octet_string(value.public_bytes()))


def _oid(value: x509.ExtensionType) -> bytes:
    return _der.object_identifier(value.oid.dotted_string)
