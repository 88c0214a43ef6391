"""Certificate profiles: what a pair of certificates may be asked for, and what stands in it."""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, model_validator

from cm_service.issuer.smime_baseline import check_baseline
from keyark.clock import SECONDS_PER_DAY
from keyark.config import Config, misplaced
from keyark.errors import KeyarkError
from keyark.errors.enrollment import ArchivalForbiddenError, KeyTypeNotPermittedError, ReceiptMissingError
from keyark.keys.key_types import KeyType
from keyark.service.checks.callers import CallerSignature
from keyark.statements.enrollment import Statement
from keyark.v1 import certificates_pb2, common_pb2
from keyark.x509.distribution import Distribution
from keyark.x509.end_entity_profile import EndEntityProfile, ProfileContentError, RoleProfile
from keyark.x509.key_usages import SIGNING_USAGES
from keyark.x509.subjects import SubjectTemplate

READY: Final = Path(__file__).with_name("ready")
"""The folder of the profiles that come with keyark: NAME.toml, the keys of [profiles.NAME]."""


@cache
def ready_profiles() -> Mapping[str, Mapping[str, Any]]:
    """Return the profiles that come with keyark, by name."""
    return {path.stem: tomllib.loads(path.read_text()) for path in sorted(READY.glob("*.toml"))}


class ProfileArchival(enum.Enum):
    """Whether the profile archives the encryption private key."""

    REQUIRED = "required"
    PERMITTED = "permitted"
    FORBIDDEN = "forbidden"

    @property
    def proto(self) -> common_pb2.ArchivalPolicy.ValueType:
        """The number that stands for it in messages."""
        return common_pb2.ArchivalPolicy.Value(f"ARCHIVAL_POLICY_{self.name}")


class ProfileSettings(Config):
    """[profiles.NAME]: one profile; with ``base``, the ready one of that name and what is changed of it."""

    description: Annotated[str, Field(max_length=200)]
    archival: ProfileArchival = ProfileArchival.REQUIRED
    caller_signature: CallerSignature = CallerSignature.REQUIRED
    validity_days: Annotated[int, Field(ge=1, le=3650)] = 730
    backdate_seconds: Annotated[int, Field(ge=0, le=SECONDS_PER_DAY)] = 300
    subject: tuple[str, ...] = ("CN={common_name}",)
    alternative_names: tuple[str, ...] = ("email",)
    signing_key_types: tuple[KeyType, ...]
    signing_key_usage: tuple[str, ...] = SIGNING_USAGES
    signing_extended_key_usage: tuple[str, ...] = ("emailProtection",)
    encryption_key_types: tuple[KeyType, ...]
    encryption_key_usage: tuple[str, ...] = ()
    encryption_extended_key_usage: tuple[str, ...] = ("emailProtection",)
    policy_oids: tuple[str, ...] = ()
    crl_urls: tuple[str, ...] = ()
    ca_issuer_urls: tuple[str, ...] = ()
    ocsp_urls: tuple[str, ...] = ()
    critical: tuple[str, ...] = ("keyUsage",)

    @model_validator(mode="before")
    @classmethod
    def _take_up_base(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "base" not in values:
            return values
        base, changed = values["base"], {key: value for key, value in values.items() if key != "base"}
        if base not in ready_profiles():
            raise misplaced(
                f"there is no ready profile with this name; these exist: {', '.join(ready_profiles())}",
                "base",
            )
        return {**ready_profiles()[base], **changed}

    @model_validator(mode="after")
    def _fits_in_certificates(self) -> ProfileSettings:
        if not self.encryption_key_types and self.archival is not ProfileArchival.FORBIDDEN:
            raise misplaced(
                "without encryption key types there is nothing to archive; set archival to forbidden",
                "archival",
            )
        for key in ("policy_oids", "crl_urls", "ca_issuer_urls", "ocsp_urls"):
            try:
                Distribution(**{key: getattr(self, key)})
            except KeyarkError as error:
                raise misplaced(error.message, key) from None
        try:
            content = self.content
            check_baseline(content, validity_days=self.validity_days)
        except ProfileContentError as error:
            raise misplaced(error.message, error.key) from None
        return self

    @property
    def content(self) -> EndEntityProfile:
        """What stands in the certificates."""
        return EndEntityProfile(
            subject=self.subject,
            alternative_names=self.alternative_names,
            signing=RoleProfile(
                key_types=tuple(key_type.value for key_type in self.signing_key_types),
                key_usage=self.signing_key_usage,
                extended_key_usage=self.signing_extended_key_usage,
            ),
            encryption=RoleProfile(
                key_types=tuple(key_type.value for key_type in self.encryption_key_types),
                key_usage=self.encryption_key_usage,
                extended_key_usage=self.encryption_extended_key_usage,
            ),
            critical=self.critical,
            distribution=Distribution(
                crl_urls=self.crl_urls,
                ca_issuer_urls=self.ca_issuer_urls,
                ocsp_urls=self.ocsp_urls,
                policy_oids=self.policy_oids,
            ),
        )

    def to_proto(self, name: str) -> certificates_pb2.Profile:
        """Return what the RM and the clients are told of the profile."""
        return certificates_pb2.Profile(
            name=name,
            description=self.description,
            fields=["common_name", "email"],
            signing_key_types=[key_type.proto for key_type in self.signing_key_types],
            encryption_key_types=[key_type.proto for key_type in self.encryption_key_types],
            archival=self.archival.proto,
            caller_signature=self.caller_signature.proto,
        )

    def check(self, statement: Statement, *, receipt: bytes) -> None:
        """Raise where the profile does not permit these keys or this address, or what came or lacks as a receipt."""
        SubjectTemplate(self.subject).check(statement.email)
        for key_type, permitted in (
            (statement.signing_key_type, self.signing_key_types),
            (statement.encryption_key_type, self.encryption_key_types),
        ):
            if key_type is None and not permitted:
                continue
            if key_type not in permitted:
                asked = key_type.value if key_type else "no key"
                raise KeyTypeNotPermittedError(
                    f"Profile {statement.profile!r} does not permit {asked} here; it permits "
                    f"{', '.join(t.value for t in permitted) or 'no key'}."
                )
        if self.archival is ProfileArchival.REQUIRED and not receipt:
            raise ReceiptMissingError(
                f"Profile {statement.profile!r} requires archival; show the archival receipt of the encryption key."
            )
        if self.archival is ProfileArchival.FORBIDDEN and receipt:
            raise ArchivalForbiddenError(
                f"Profile {statement.profile!r} forbids archival; enroll without a wrapped key."
            )
