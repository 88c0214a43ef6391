"""The rule types that are written in Python; those of ``keyark.policy.rules.library`` are written in CEL."""

from __future__ import annotations

from typing import Final, get_args

from keyark.policy.rules.enrollment import (
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
    ValidityRule,
)
from keyark.policy.rules.renewal import RenewalRule
from keyark.policy.rules.revocation import RevocationRule

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
    ValidityRule,
)


def type_name(kind: type[RuleSettings]) -> str:
    """Return what a rule of this kind has as its ``type``; where there are older names, the present one."""
    name: str = get_args(kind.model_fields["type"].annotation)[0]
    return name
