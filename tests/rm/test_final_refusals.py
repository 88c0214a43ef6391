"""An error says itself whether time heals it: what does not ends an approved request, what does is tried again."""

from __future__ import annotations

import pytest

from keyark.custody.matching import KeyMismatchError, MlKemSeedRequiredError
from keyark.errors import KeyarkError, Kind, OverloadedError, UnavailableError
from keyark.errors.enrollment import (
    AlreadyRenewedError,
    KeyPairRefusedError,
    KeyRoleConflictError,
    LinkedElsewhereError,
    PublicKeyInUseError,
    RenewalOnHoldError,
    RenewalRefusedError,
)
from keyark.errors.services import CheckpointGapError, StoreFullError
from keyark.keys.weak_keys import WeakKeyError
from keyark.rpc.errors import RemoteError, error_from_status, error_to_status
from keyark.statements.approvals import ApprovalMismatchError, ApprovalTimeError
from keyark.statements.enrollment import RenewalSignatureError
from keyark.x509.certificates import IssuerNotYetValidError, IssuerValidityError

FINAL = [
    KeyMismatchError,
    MlKemSeedRequiredError,
    KeyPairRefusedError,
    WeakKeyError,
    KeyRoleConflictError,
    PublicKeyInUseError,
    RenewalRefusedError,
    AlreadyRenewedError,
    RenewalSignatureError,
    IssuerValidityError,
    ApprovalMismatchError,
    LinkedElsewhereError,
]
HEALING = [
    UnavailableError,
    OverloadedError,
    StoreFullError,
    CheckpointGapError,
    RenewalOnHoldError,
    ApprovalTimeError,
    IssuerNotYetValidError,
]


@pytest.mark.parametrize("error", FINAL)
def test_what_time_does_not_heal_arrives_as_final(error: type[KeyarkError]) -> None:
    assert error_from_status(error_to_status(error("No."))).is_final


@pytest.mark.parametrize("error", HEALING)
def test_what_time_heals_does_not(error: type[KeyarkError]) -> None:
    assert not error_from_status(error_to_status(error("Not now."))).is_final


@pytest.mark.parametrize("is_final", [True, False])
def test_an_error_of_another_release_is_what_that_release_says(is_final: bool) -> None:
    error = RemoteError("No.", kind=Kind.PRECONDITION, reason="OF_ANOTHER_RELEASE", metadata={"a": "b"})
    error.is_final = is_final  # type: ignore[misc]
    back = error_from_status(error_to_status(error))
    assert (back.reason, back.is_final, back.metadata) == ("OF_ANOTHER_RELEASE", is_final, {"a": "b"})


def test_what_a_class_that_is_known_here_says_cannot_be_taken_back_but_added_to() -> None:
    error = UnavailableError("Never again.", metadata={"long": "x" * 100_000})
    error.is_final = True  # type: ignore[misc]
    assert error_from_status(error_to_status(error)).is_final
    status = error_to_status(KeyMismatchError("No."))
    status.ClearField("details")
    status.details.append(
        error_to_status(RemoteError("", kind=Kind.INVALID, reason="KEY_MISMATCH", metadata={})).details[0]
    )
    assert error_from_status(status).is_final
