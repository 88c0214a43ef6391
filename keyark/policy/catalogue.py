"""The rule types that are written in Python; those of ``keyark.policy.library`` are written in CEL."""

from __future__ import annotations

from typing import Final, get_args

from keyark.policy.renewal_rule import RenewalRule
from keyark.policy.revocation_rule import RevocationRule
from keyark.policy.rules import (
    ArchivalRule,
    CallerSubjects,
    Expression,
    KeyTypes,
    ManualApproval,
    Quota,
    ReceiptRule,
    Recovery,
    RuleSettings,
    SubjectConstraints,
    UniqueSubjectName,
    Validity,
)

RULE_TYPES: Final[tuple[type[RuleSettings], ...]] = (
    ArchivalRule,
    CallerSubjects,
    Expression,
    KeyTypes,
    ManualApproval,
    Quota,
    ReceiptRule,
    Recovery,
    RenewalRule,
    RevocationRule,
    SubjectConstraints,
    UniqueSubjectName,
    Validity,
)


def type_name(kind: type[RuleSettings]) -> str:
    """Return what a rule of this kind has as its ``type``; where there are older names, the present one."""
    name: str = get_args(kind.model_fields["type"].annotation)[0]
    return name
