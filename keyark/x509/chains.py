"""Certification path validation: the checks of RFC 5280 §6 that matter without policies and constraints.

A critical extension that is not processed here (name and policy constraints among them) refuses the path, so
what is left out can never let one through. Revocation is not checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID

from keyark.errors import KeyarkError, Kind
from keyark.keys.key_types import SIGNING_KEY_TYPES, UnsupportedKeyError, check_key_type, key_type_of
from keyark.x509.certificates import Validity

MAX_INTERMEDIATES: Final = 8

_PROCESSED: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


class CertificateChainError(KeyarkError):
    """No valid path leads from the certificate to a trust anchor."""

    reason = "CERTIFICATE_CHAIN"
    kind = Kind.PRECONDITION


class CertificateExpiredError(CertificateChainError):
    """A certificate of the path has expired, or is not yet valid: CertificateNotYetValidError."""

    reason = "CERTIFICATE_EXPIRED"


class CertificateNotYetValidError(CertificateExpiredError):
    """A certificate of the path begins later than the time that counts."""

    reason = "CERTIFICATE_NOT_YET_VALID"


def verify_chain(
    leaf: x509.Certificate,
    *,
    intermediates: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    at: int,
) -> list[x509.Certificate]:
    """Return the path from the leaf to a trust anchor, both included, valid at ``at`` (seconds UTC).

    Intermediates may come in any order, at most 8, and anchors may be among them. Anchors are held to the
    same rules as other CAs. Checked: signatures, names, validity, CA and path length constraints, the right
    to sign certificates, key sizes, hashes, critical extensions. What the leaf may be used for is for the
    caller to check. Raises CertificateChainError, and CertificateExpiredError of it.
    """
    if len(intermediates) > MAX_INTERMEDIATES:
        raise CertificateChainError(f"The chain has more than {MAX_INTERMEDIATES} certificates.")
    _check_time(leaf, Validity.of(leaf), at)
    _check_form(leaf)
    return _climb([leaf], [c for c in intermediates if c not in anchors], anchors, at)


def lowest(certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Return the certificates of a set that issued none of the others: of chains below one root, the issuing CAs'."""
    return [
        certificate
        for certificate in certificates
        if not any(other.issuer == certificate.subject for other in certificates if other != certificate)
    ]


def moments_of(leaf: x509.Certificate, others: Sequence[x509.Certificate]) -> list[int]:
    """Return the times (seconds UTC) at one of which all of any path are valid, where there is such a time.

    The certificates of a path are valid together from the latest of their beginnings, if at all.
    """
    own = Validity.of(leaf)
    begins = {Validity.of(other).not_before for other in others}
    return sorted({own.not_before, *(at for at in begins if own.not_before <= at <= own.not_after)})


def verify_chain_once(
    leaf: x509.Certificate,
    *,
    intermediates: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
) -> list[x509.Certificate]:
    """As ``verify_chain``, at a moment when the whole path is valid, whether that is now or not.

    For what was issued under a CA certificate that has ended since, or has a successor that began later. Raises the
    error of the earliest moment where there is none.
    """
    first: CertificateChainError | None = None
    for at in moments_of(leaf, [*intermediates, *anchors]):
        try:
            return verify_chain(leaf, intermediates=intermediates, anchors=anchors, at=at)
        except CertificateChainError as error:
            first = first or error
    raise first or CertificateChainError(f"The validity of {_name(leaf)!r} ends before it begins.")


@dataclass(frozen=True, kw_only=True)
class KnownChains:
    """The chains of a CA that are or were in force, each from the issuing CA to its root; the present one is first.

    Only what one of these issuing CAs signed itself is verified: a root of before vouches for nothing else any more.
    """

    paths: tuple[tuple[x509.Certificate, ...], ...]

    @classmethod
    def among(cls, certificates: Sequence[x509.Certificate]) -> Self:
        """Find the chains in a set whose first certificate is the present issuing CA's and whose last is its root.

        An issuing CA whose chain is not complete, or was valid at no moment, is left out.
        """
        roots = [one for one in certificates if is_root(one) or one == certificates[-1]]
        paths = [_known_path(issuer, certificates, roots) for issuer in lowest(certificates)]
        return cls(paths=tuple(tuple(path) for path in paths if path))

    def verify(self, leaf: x509.Certificate, *, at: int | None = None) -> list[x509.Certificate]:
        """Return the path from the leaf to a root, valid at ``at`` (seconds UTC), or at any moment without it.

        Raises CertificateChainError, and CertificateExpiredError of it.
        """
        refusal: CertificateChainError | None = None
        for path in self.paths:
            for moment in moments_of(leaf, path) if at is None else [at]:
                try:
                    verify_chain(leaf, intermediates=(), anchors=path[:1], at=moment)
                    for issuer in path[1:]:
                        _check_time(issuer, Validity.of(issuer), moment)
                except CertificateChainError as error:
                    refusal = refusal or error
                else:
                    return [leaf, *path]
        raise refusal or CertificateChainError(
            f"{_name(leaf)!r} was issued by a CA that is not known here; get the newest ca.pem."
        )


def path_in_force(certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Return the chain of the first certificate of a set, up to a root: ca.pem also has what was in force before.

    Raises CertificateChainError where the set holds no such chain.
    """
    for path in KnownChains.among(certificates).paths:
        if path[0] == certificates[0]:
            return list(path)
    raise CertificateChainError(
        f"No chain leads from the first certificate, {_name(certificates[0])!r}, to a root in the "
        "same file. Put the CA's certificate first, and the certificates above it after it."
    )


def is_root(certificate: x509.Certificate) -> bool:
    """Whether a certificate is signed by its own key."""
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _known_path(
    issuer: x509.Certificate, certificates: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    if issuer in roots:
        return [issuer]
    others = [one for one in certificates if one != issuer and one not in roots]
    # The root of the chain in force is the last of a set, and a CA's own certificate may be below more than one.
    anchors = [*roots[-1:], *roots[:-1]]
    for at in moments_of(issuer, certificates):
        try:
            return _climb([issuer], list(others), anchors, at)
        except CertificateChainError:
            continue
    return []


def _climb(
    path: list[x509.Certificate],
    untried: list[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    at: int,
) -> list[x509.Certificate]:
    """Extend the path upwards; each intermediate is tried once, which bounds the cost of odd chains."""
    refusal: CertificateChainError | None = None
    for anchor in anchors:
        try:
            _check_issued(path, anchor, at)
        except _NotTheIssuerError:
            continue
        except CertificateChainError as error:
            refusal = error
            continue
        return [*path, anchor]
    for issuer in tuple(untried):
        if issuer not in untried:
            continue
        try:
            _check_issued(path, issuer, at)
            untried.remove(issuer)
            return _climb([*path, issuer], untried, anchors, at)
        except _NotTheIssuerError:
            continue
        except CertificateChainError as error:
            refusal = error
    raise refusal or CertificateChainError(
        f"{_name(path[-1])!r} is issued by {path[-1].issuer.rfc4514_string()!r}, which is neither a trust anchor nor "
        "in the chain; check both."
    )


class _NotTheIssuerError(CertificateChainError):
    """The other certificate has another name: no failure, just not the one."""


def _check_issued(path: Sequence[x509.Certificate], issuer: x509.Certificate, at: int) -> None:
    certificate = path[-1]
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        if certificate.issuer != issuer.subject:
            raise _NotTheIssuerError("another name") from None
        raise CertificateChainError(
            f"{_name(certificate)!r} was not signed by {_name(issuer)!r}; check the trust anchor."
        ) from None
    authority = _authority(issuer)
    _check_time(issuer, authority.validity, at)
    below = sum(c.subject != c.issuer for c in path[1:])
    if authority.path_length is not None and below > authority.path_length:
        raise CertificateChainError(
            f"{_name(issuer)!r} permits {authority.path_length} CAs below it, but there are {below}."
        )


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()


def _check_time(certificate: x509.Certificate, validity: Validity, at: int) -> None:
    not_before, not_after = (end.isoformat() for end in validity.dates())
    if at > validity.not_after:
        raise CertificateExpiredError(
            f"The certificate of {_name(certificate)!r} ended on {not_after}; renew it, or check the clock."
        )
    if at < validity.not_before:
        raise CertificateNotYetValidError(
            f"The certificate of {_name(certificate)!r} is not valid before {not_before}; check the clock."
        )


def _check_form(certificate: x509.Certificate) -> None:
    digest = certificate.signature_hash_algorithm
    if digest is not None and not isinstance(digest, _HASHES):
        raise CertificateChainError(
            f"The certificate of {_name(certificate)!r} is signed with the weak hash {digest.name}."
        )
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _PROCESSED:
            raise CertificateChainError(
                f"The certificate of {_name(certificate)!r} has the critical extension "
                f"{extension.oid.dotted_string}, which is not understood here."
            )


@dataclass(frozen=True)
class _Authority:
    """What an issuer's own certificate says of it, whenever that is asked."""

    validity: Validity
    path_length: int | None


@lru_cache(maxsize=64)  # the same few issuers, for every certificate that comes by
def _authority(issuer: x509.Certificate) -> _Authority:
    """Return what an issuer may do; raises CertificateChainError where it is none."""
    _check_form(issuer)
    try:
        check_key_type(key_type_of(issuer.public_key()), SIGNING_KEY_TYPES)
        basic = issuer.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except UnsupportedKeyError as error:
        raise CertificateChainError(f"{_name(issuer)!r}: {error.message}") from None
    except x509.ExtensionNotFound:
        raise CertificateChainError(f"{_name(issuer)!r} is not a CA.") from None
    if not (basic.critical and basic.value.ca):
        raise CertificateChainError(f"{_name(issuer)!r} is not a CA.")
    if not usage.key_cert_sign:
        raise CertificateChainError(f"{_name(issuer)!r} may not sign certificates.")
    return _Authority(Validity.of(issuer), basic.value.path_length)
