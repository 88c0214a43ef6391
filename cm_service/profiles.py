"""Certificate profiles: what a pair of certificates may be asked for, and what stands in it."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final

from pydantic import Field, model_validator

from keyark.config import Config
from keyark.errors import KeyarkError, Kind
from keyark.pki.distribution import Distribution
from keyark.pki.end_entity import EndEntityProfile
from keyark.pki.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, KeyType
from keyark.pki.statements import Statement
from keyark.service.requests import ArchivalForbiddenError
from keyark.v1 import certificates_pb2, common_pb2

SECONDS_PER_DAY: Final = 86_400


class ArchivalRule(enum.Enum):
    """Whether the profile archives the encryption private key."""

    REQUIRED = "required"
    PERMITTED = "permitted"
    FORBIDDEN = "forbidden"

    @property
    def proto(self) -> common_pb2.ArchivalPolicy.ValueType:
        """The number that stands for it in messages."""
        return common_pb2.ArchivalPolicy.Value(f"ARCHIVAL_POLICY_{self.name}")


class KeyTypeNotPermittedError(KeyarkError):
    """The profile does not permit a key of this type or size."""

    reason = "KEY_TYPE_NOT_PERMITTED"
    kind = Kind.PRECONDITION


class ReceiptMissingError(KeyarkError):
    """The profile requires archival and no archival receipt was shown (P1)."""

    reason = "RECEIPT_REQUIRED"
    kind = Kind.PRECONDITION


class ProfileSettings(Config):
    """[profiles.NAME]: one profile."""

    description: Annotated[str, Field(max_length=200)]
    signing_key_types: Annotated[list[KeyType], Field(min_length=1)]
    encryption_key_types: Annotated[list[KeyType], Field(min_length=1)]
    archival: ArchivalRule = ArchivalRule.REQUIRED
    validity_days: Annotated[int, Field(ge=1, le=3650)] = 730
    backdate_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    organization: Annotated[str, Field(max_length=64)] = ""
    crl_urls: list[str] = []
    ca_issuer_urls: list[str] = []
    ocsp_urls: list[str] = []
    policy_oids: list[str] = []

    @model_validator(mode="after")
    def _fits_in_certificates(self) -> ProfileSettings:
        try:
            distribution = self.end_entity_settings()["distribution"]
            EndEntityProfile(
                organization=self.organization,
                distribution=Distribution(**{name: tuple(values) for name, values in distribution.items()}),
            )
        except KeyarkError as error:
            raise ValueError(error.message) from None
        return self

    @model_validator(mode="after")
    def _roles_fit(self) -> ProfileSettings:
        for listed, fitting, role in (
            (self.signing_key_types, SIGNING_KEY_TYPES, "signing"),
            (self.encryption_key_types, ENCRYPTION_KEY_TYPES, "encryption"),
        ):
            for key_type in listed:
                if key_type not in fitting:
                    raise ValueError(
                        f"{key_type.value} is no {role} key type; {', '.join(t.value for t in fitting)} are"
                    )
        return self

    def to_proto(self, name: str) -> certificates_pb2.Profile:
        """Return what the RM and the clients are told of the profile."""
        return certificates_pb2.Profile(
            name=name,
            description=self.description,
            fields=["common_name", "email"],
            signing_key_types=[key_type.proto for key_type in self.signing_key_types],
            encryption_key_types=[key_type.proto for key_type in self.encryption_key_types],
            archival=self.archival.proto,
        )

    def end_entity_settings(self) -> dict[str, Any]:
        """Return what the signing workers need to know of the profile, fit for JSON."""
        names = ("crl_urls", "ca_issuer_urls", "ocsp_urls", "policy_oids")
        return {
            "organization": self.organization,
            "distribution": {name: getattr(self, name) for name in names},
        }

    def check(self, statement: Statement, *, receipt: bytes) -> None:
        """Raise where the profile does not permit these key types, or what came or lacks as a receipt."""
        for key_type, permitted in (
            (statement.signing_key_type, self.signing_key_types),
            (statement.encryption_key_type, self.encryption_key_types),
        ):
            if key_type not in permitted:
                raise KeyTypeNotPermittedError(
                    f"Profile {statement.profile!r} does not permit {key_type.value} here; it permits "
                    f"{', '.join(t.value for t in permitted)}."
                )
        if self.archival is ArchivalRule.REQUIRED and not receipt:
            raise ReceiptMissingError(
                f"Profile {statement.profile!r} requires archival; show the archival receipt of the encryption key."
            )
        if self.archival is ArchivalRule.FORBIDDEN and receipt:
            raise ArchivalForbiddenError(
                f"Profile {statement.profile!r} forbids archival; enroll without a wrapped key."
            )
