"""Why no connection came about: each cause its own sentence, with the service, its address and the way out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from keyark.errors import DeadlineExceededError, KeyarkError, UnavailableError
from keyark.rpc.identities import LocalIdentity
from keyark.x509.certificates import Validity


class NoConnectionError(UnavailableError):
    """No connection came about: nobody listens, or mutual TLS failed before any handler ran."""

    reason = "NO_CONNECTION"


class IdentityEndedError(NoConnectionError):
    """The certificate of the caller's own identity ended."""

    reason = "IDENTITY_ENDED"


class IdentityNotYetValidError(NoConnectionError):
    """The certificate of the caller's own identity begins later than the caller's clock says it is."""

    reason = "IDENTITY_NOT_YET_VALID"


class ServiceCertificateError(NoConnectionError):
    """What answers at the address presents no certificate of the service that is in force."""

    reason = "SERVICE_CERTIFICATE"


_REFUSED: Final = "{service} refused the connection, so it is not running. Start it, or ask its operator to."
_CAUSES: Final[tuple[tuple[str, type[NoConnectionError], str], ...]] = (
    ("certificate has expired", ServiceCertificateError,
     "The certificate of {service} has expired. Its operator renews it with `keyark identities "
     "renew`. If it should be valid, check this computer's clock, which says {now}."),
    ("not yet valid", ServiceCertificateError,
     "The certificate of {service} is not yet valid: this computer's clock says {now}. "
     "Correct the clock that is wrong."),
    ("hostname verification", ServiceCertificateError,
     "Another service answered instead of {service}; check the address."),
    ("peer name", ServiceCertificateError,
     "Another service answered instead of {service}; check the address."),
    ("certificate_verify_failed", ServiceCertificateError,
     "Whatever answered as {service} has no certificate from this deployment's internal CA; "
     "check the address and the trust anchor."),
    ("connection refused", NoConnectionError, _REFUSED),
    ("could not contact dns", NoConnectionError, "The host name of {service} does not resolve; check the address."),
    ("domain name not found", NoConnectionError, "The host name of {service} does not resolve; check the address."),
    ("dns resolution failed", NoConnectionError, "The host name of {service} does not resolve; check the address."),
    (
        "unreachable",
        NoConnectionError,
        "{service} cannot be reached from this computer; check network, firewall and address.",
    ),
    ("timed out", NoConnectionError, "{service} does not answer; check network, firewall and address."),
    ("timeout", NoConnectionError, "{service} does not answer; check network, firewall and address."),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reach:
    """A way to a service: its DNS name ("rm.example.org"), HOST:PORT, and who calls; ``now`` is in seconds UTC."""

    name: str
    address: str
    identity: Callable[[], LocalIdentity]
    now: Callable[[], int]

    @property
    def service(self) -> str:
        """The service and its address for people: "The DRM at 127.0.0.1:7712"."""
        return f"The {self.name.partition('.')[0].upper()} at {self.address}"

    def no_connection(self, details: str) -> NoConnectionError:
        """Return the error of a call that found no connection; ``details`` are what gRPC or TLS said."""
        own = self._own_fault()
        if own is not None:
            return own
        said = details.lower()
        for words, error, sentence in _CAUSES:
            if words in said:
                return error(sentence.format(service=self.service, now=_date(self.now())))
        return NoConnectionError(
            f"{self.service} closed the connection: it was stopped, or it does not accept the certificate "
            f"of {self.identity().spiffe_id}. Try again. If it fails again, ask its operator, whose log "
            "has the cause."
        )

    def timed_out(self) -> KeyarkError:
        """Return the error of a call whose time ran out."""
        return DeadlineExceededError(
            f"{self.service} did not answer in time. Try again; if the request has an id, keep it."
        )

    def _own_fault(self) -> NoConnectionError | None:
        """Return what is wrong with the caller's own certificate, by the caller's own clock."""
        identity, now = self.identity(), self.now()
        validity = Validity.of(identity.leaf)
        if now > validity.not_after:
            return IdentityEndedError(
                f"{self.service} was not called, because the certificate of {identity.spiffe_id} ended on "
                f"{_date(validity.not_after)}. Have it renewed with `keyark identities renew`. If it should "
                f"be valid, check this computer's clock, which says {_date(now)}."
            )
        if now < validity.not_before:
            return IdentityNotYetValidError(
                f"{self.service} was not called, because the certificate of {identity.spiffe_id} is not valid "
                f"before {_date(validity.not_before)}, and this computer's clock says {_date(now)}. Set the "
                "clock."
            )
        return None


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
