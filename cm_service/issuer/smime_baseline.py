"""Whoever claims the S/MIME Baseline Requirements of the CA/Browser Forum has to keep them.

A profile claims them with a policy OID of the arc 2.23.140.1.5. What is checked is what a profile decides; how the
person behind a mailbox was verified, no program can. Mailbox-validated certificates are the ones that fit keyark: a
statement has neither given names nor surnames, which the other levels demand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from keyark.keys.key_types import SMIME_KEY_TYPES
from keyark.x509.end_entity_profile import EndEntityProfile, ProfileContentError

_ARC: Final = "2.23.140.1.5."
_LEVELS: Final = {"1": "mailbox", "2": "organization", "3": "sponsored", "4": "individual"}
_STRICT: Final = "3"
_MAX_DAYS: Final = {
    "2": 825,
    "3": 825,
}  # §6.3.2: multipurpose and strict; legacy is not issued any more (§1.2.1)
_KEY_TYPES: Final = tuple(t.value for t in SMIME_KEY_TYPES)  # §7.1.3.1
_MAILBOX_SUBJECT: Final = frozenset(("CN={email}", "emailAddress={email}"))  # §7.1.4.2.2


def check_baseline(content: EndEntityProfile, *, validity_days: int) -> None:
    """Raise ProfileContentError where a profile claims the Baseline Requirements and does not keep them."""
    claims = [oid for oid in content.distribution.policy_oids if oid.startswith(_ARC)]
    if not claims:
        return
    level, _, generation = claims[0].removeprefix(_ARC).partition(".")
    _require(
        len(claims) == 1, "policy_oids", "Only one policy of the S/MIME Baseline Requirements can be claimed."
    )
    _require(
        _LEVELS.get(level) == "mailbox" and generation in _MAX_DAYS,
        "policy_oids",
        f"Of the S/MIME Baseline Requirements keyark issues mailbox-validated multipurpose ({_ARC}1.2) and strict "
        f"({_ARC}1.3).",
    )
    _require(
        validity_days <= _MAX_DAYS[generation],
        "validity_days",
        f"{_MAX_DAYS[generation]} days are the most (§6.3.2).",
    )
    _check_content(content)
    if generation == _STRICT:
        _check_strict(content)


def _check_content(content: EndEntityProfile) -> None:
    _require(
        set(content.subject) <= _MAILBOX_SUBJECT,
        "subject",
        f"It holds {_list(_MAILBOX_SUBJECT)} only (§7.1.4.2.2).",
    )
    for role, key in ((content.signing, "signing_key_types"), (content.encryption, "encryption_key_types")):
        _require(
            set(role.key_types) <= set(_KEY_TYPES),
            key,
            f"Only {', '.join(_KEY_TYPES)} are permitted (§7.1.3.1).",
        )
    urls = content.distribution
    _require(bool(urls.crl_urls), "crl_urls", "At least one URL of the CRL has to stand there (§7.1.2.3 b).")
    for key, values in (
        ("crl_urls", urls.crl_urls),
        ("ca_issuer_urls", urls.ca_issuer_urls),
        ("ocsp_urls", urls.ocsp_urls),
    ):
        _require(all(url.startswith("http://") for url in values), key, "URLs are http:// ones (§7.1.2.3).")
    _require("keyUsage" in content.critical, "critical", "keyUsage has to be critical (§7.1.2.3 e).")
    for role, key in (
        (content.signing, "signing_extended_key_usage"),
        (content.encryption, "encryption_extended_key_usage"),
    ):
        _require(
            "emailProtection" in role.extended_key_usage, key, "emailProtection has to be there (§7.1.2.3 f)."
        )


def _check_strict(content: EndEntityProfile) -> None:
    for role, key in (
        (content.signing, "signing_extended_key_usage"),
        (content.encryption, "encryption_extended_key_usage"),
    ):
        _require(
            role.extended_key_usage == ("emailProtection",), key, "It is emailProtection alone (§7.1.2.3 f)."
        )
    _require(
        "dataEncipherment" not in content.encryption.key_usage,
        "encryption_key_usage",
        "dataEncipherment is not permitted (§7.1.2.3 e).",
    )
    _require(
        content.alternative_names == ("email",),
        "alternative_names",
        "It is the e-mail address alone (§7.1.2.3 h).",
    )


def _require(met: object, key: str, message: str) -> None:
    if not met:
        raise ProfileContentError(f"The S/MIME Baseline Requirements are claimed: {message}", key=key)


def _list(values: Sequence[str] | frozenset[str]) -> str:
    return " and ".join(sorted(values))
