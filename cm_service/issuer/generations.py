"""The CA's keys by generation: one signs certificates; earlier ones sign CRLs and OCSP for what they have signed.

A certificate's record tells the generation of its issuer, and so does its entry on a list. Names of lists and pages of
generation 0 are as they were before there was another; those of generation 2 have "-ca2" in them, which is also what
"{ca}" in a profile's URLs stands for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from pydantic import Field, model_validator

from cm_service.issuer.profiles import ProfileSettings
from cm_service.records import CRL_STATE, PAIRS, has_issued
from cm_service.revocation.crl_rows import LIST_PREFIX
from keyark.clock import Clock
from keyark.config import Config, ConfigPath
from keyark.errors import ConfigurationError
from keyark.keys.spki import public_key_id
from keyark.records.v1.cm_pb2 import PairRecord
from keyark.service.settings import KeyUri
from keyark.store import ReadTransaction, Store, WriteTransaction
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.x509.authority import describe_name
from keyark.x509.certificates import encode_certificate, load_certificate, load_certificates
from keyark.x509.chains import path_in_force
from keyark.x509.crls import MAX_SHARDS

PLACE: Final = "{ca}"
MAX_GENERATION: Final = 127
SEARCHED: Final = 1000
"""So many pairs are looked through for one that an issuer signed."""
_KEY: Final = b"issuer/"
_NAME: Final = b"issuer-name/"


class IssuerGenerationError(ConfigurationError):
    """A generation's number belongs to another CA key; nothing is signed before that is put right."""

    reason = "ISSUER_GENERATION"


class IssuerRenamedError(ConfigurationError):
    """Certificates were issued under another name or key identifier of the CA; nothing is signed under this one."""

    reason = "ISSUER_RENAMED"


class EarlierIssuer(Config):
    """[[issuer.earlier]]: a CA key that signs lists and OCSP only, and its certificate followed by those above it."""

    generation: Annotated[int, Field(ge=0, le=MAX_GENERATION)]
    key: KeyUri
    chain: ConfigPath


class IssuerSettings(Config):
    """[issuer]: the CA key and its certificate, followed by those above it and chains of before; and earlier keys."""

    key: KeyUri
    chain: ConfigPath
    generation: Annotated[int, Field(ge=0, le=MAX_GENERATION)] = 0
    earlier: tuple[EarlierIssuer, ...] = ()

    @model_validator(mode="after")
    def _are_in_order(self) -> IssuerSettings:
        numbers = [*(issuer.generation for issuer in self.earlier), self.generation]
        if numbers != sorted(set(numbers)):
            raise ValueError(
                "earlier CA keys must be in the order of their generations, and lower than the current "
                "generation"
            )
        return self

    def all(self) -> Iterator[EarlierIssuer]:
        """Yield every CA key, the present one first."""
        yield EarlierIssuer(generation=self.generation, key=self.key, chain=self.chain)
        yield from reversed(self.earlier)

    def chains(self) -> dict[int, list[bytes]]:
        """Return the chain in force (DER) of each generation.

        Raises CertificateChainError where a file has none, and the errors of ``load_certificates``.
        """
        return {
            issuer.generation: [
                encode_certificate(one) for one in path_in_force(load_certificates(issuer.chain))
            ]
            for issuer in self.all()
        }


def suffix(generation: int) -> str:
    """Return what names of a generation's lists, pages and files have in them."""
    return f"-ca{generation}" if generation else ""


def for_issuer(profiles: Mapping[str, ProfileSettings], generation: int) -> dict[str, ProfileSettings]:
    """Return the profiles with the URLs of a generation in the place of PLACE.

    Raises ConfigurationError where a later generation would have the URLs of the first.
    """
    return {name: _placed(name, profile, generation) for name, profile in profiles.items()}


def _placed(name: str, profile: ProfileSettings, generation: int) -> ProfileSettings:
    changed = {}
    for key in ("crl_urls", "ca_issuer_urls"):
        urls: tuple[str, ...] = getattr(profile, key)
        if generation and any(PLACE not in url for url in urls):
            raise ConfigurationError(
                f"{key} of profile {name!r} have no {PLACE}, and the CA's second key needs URLs of its own; write it "
                "before the file name's ending."
            )
        changed[key] = tuple(url.replace(PLACE, suffix(generation)) for url in urls)
    return profile.model_copy(update=changed)


@dataclass(frozen=True, kw_only=True)
class IssuerRegister:
    """Which CA key has which generation, in the CM's store."""

    store: Store
    log: Log
    clock: Clock

    async def record(self, settings: IssuerSettings) -> None:
        """Hold the configured keys against the store, and log a later generation that is new.

        Raises IssuerGenerationError, IssuerRenamedError, and the errors of certificates, store and log.
        """
        certificates = {issuer.generation: _certificate(issuer.chain) for issuer in settings.all()}
        await self.store.update(lambda txn: self._record(txn, certificates, settings.generation))

    def _record(
        self, txn: WriteTransaction, certificates: Mapping[int, x509.Certificate], present: int
    ) -> None:
        for generation, certificate in certificates.items():
            key_id = _key_id(certificate)
            if not _is_recorded(txn, generation, key_id):
                txn.put(CRL_STATE, _KEY + bytes([generation]), key_id)
                if generation == present and generation:
                    self._log(txn, certificate, key_id)
            _hold_name(txn, generation, certificate)

    def _log(self, txn: WriteTransaction, certificate: x509.Certificate, key_id: bytes) -> None:
        event = AuditEvent(
            version=EVENT_VERSION,
            type=EventType.EVENT_TYPE_ISSUER_IN_FORCE,
            time_us=self.clock.now_us(),
            signing_spki_sha256=key_id,
            certificate_sha256=[certificate.fingerprint(hashes.SHA256())],
        )
        self.log.append(txn, new_event(event, AuditDetails()))


def check_generations(txn: ReadTransaction, settings: IssuerSettings) -> None:
    """Hold the configured keys and their names against the store, as a start does.

    Raises IssuerGenerationError and IssuerRenamedError.
    """
    for issuer in settings.all():
        certificate = _certificate(issuer.chain)
        _is_recorded(txn, issuer.generation, _key_id(certificate))
        _is_named(txn, issuer.generation, certificate)


def _is_recorded(txn: ReadTransaction, generation: int, key_id: bytes) -> bool:
    """Whether the store knows a generation's key; raises IssuerGenerationError where it knows another."""
    known = txn.get(CRL_STATE, _KEY + bytes([generation]))
    if known not in (None, key_id):
        raise IssuerGenerationError(
            f"The configured key is not the CA's key of generation {generation}; give it a number of its "
            "own, as `keyark ca rollover` does."
        )
    return known is not None


def _key_id(certificate: x509.Certificate) -> bytes:
    return public_key_id(certificate.public_key())


def _hold_name(txn: WriteTransaction, generation: int, certificate: x509.Certificate) -> None:
    """Record a CA's name and key identifier, which may change before the first certificate."""
    if _is_named(txn, generation, certificate):
        return
    row = _NAME + bytes([generation])
    if txn.get(CRL_STATE, row) is not None:
        for key, _ in txn.scan(CRL_STATE, prefix=LIST_PREFIX, limit=2 * MAX_SHARDS):
            txn.delete(CRL_STATE, key)  # lists under the former name are made anew
    txn.put(CRL_STATE, row, _name_of(certificate))


def _is_named(txn: ReadTransaction, generation: int, certificate: x509.Certificate) -> bool:
    """Whether the store knows this name; raises IssuerRenamedError where certificates were issued under another."""
    known = txn.get(CRL_STATE, _NAME + bytes([generation]))
    if known not in (None, _name_of(certificate)) and has_issued(txn):
        raise IssuerRenamedError(_renamed(_issued_under(txn, generation), certificate))
    return known == _name_of(certificate)


def _issued_under(txn: ReadTransaction, generation: int) -> tuple[x509.Name, bytes] | None:
    """Return the issuer's name and key identifier as a certificate of a generation has them; None without one."""
    for _, value in txn.scan(PAIRS, limit=SEARCHED):
        pair = PairRecord.FromString(value)
        if pair.issuer_generation == generation and pair.signing_certificate:
            issued = load_certificate(pair.signing_certificate)
            named = issued.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
            return issued.issuer, named.key_identifier or b""
    return None


def _renamed(before: tuple[x509.Name, bytes] | None, certificate: x509.Certificate) -> str:
    """Return what is to be said of a CA whose certificate differs from what it issued under."""
    name, identifier = certificate.subject, _identifier(certificate)
    differs = []
    if before is not None and before[0].public_bytes() != name.public_bytes():
        differs.append(
            f"is for {describe_name(name)}, and certificates were issued as {describe_name(before[0])}"
        )
    if before is not None and before[1] != identifier:
        differs.append(
            f"has the subject key identifier {_shown(identifier)}, and certificates that were issued name "
            f"{_shown(before[1])}"
        )
    told = "; it ".join(differs) or (
        f"is for {describe_name(name)} with the subject key identifier {_shown(identifier)}, and certificates were "
        "issued under others"
    )
    return (
        f"The CA's certificate {told}. Restore the previous chain in ca.pem. Then make a new request "
        "on this host (`keyark-cm ca-request cm/cm.toml`), which asks for the previous name and "
        "identifier, and have the root sign that."
    )


def _shown(identifier: bytes) -> str:
    return identifier.hex(":").upper() or "none"


def _name_of(certificate: x509.Certificate) -> bytes:
    """Return what certificates and lists of an issuer name it by, hashed: subject as encoded, and key identifier."""
    return sha256(sha256(certificate.subject.public_bytes()).digest() + _identifier(certificate)).digest()


def _identifier(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return b""


def _certificate(chain: Path) -> x509.Certificate:
    return load_certificates(chain)[0]
