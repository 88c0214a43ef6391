"""What DRM or CM refuses for good ends an approved request; what time can heal is tried again."""

from __future__ import annotations

import pytest

from drm_service.refused_pairs import KeyPairRefusedError
from keyark.crypto.matching import KeyMismatchError
from keyark.errors import KeyarkError, OverloadedError, UnavailableError
from keyark.pki.weak_keys import WeakKeyError
from keyark.service.key_uses import KeyRoleConflictError, PublicKeyInUseError
from rm_service.queue import is_final


@pytest.mark.parametrize(
    "error", [KeyMismatchError, KeyPairRefusedError, WeakKeyError, KeyRoleConflictError, PublicKeyInUseError]
)
def test_a_key_that_is_refused_is_not_sent_again(error: type[KeyarkError]) -> None:
    assert is_final(error("No."))


@pytest.mark.parametrize("error", [UnavailableError, OverloadedError])
def test_what_is_away_is_asked_again(error: type[KeyarkError]) -> None:
    assert not is_final(error("Not now."))
