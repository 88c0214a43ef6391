"""What every subsystem checks of a statement before it believes it: none needs to trust another for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from keyark.errors import InvalidInputError
from keyark.errors.enrollment import (
    RequestIdReusedError,
    WrongTrustDomainError,
)
from keyark.keys.known_keys import NO_KNOWN_KEYS, KnownKeys
from keyark.statements.calls import SignedCall
from keyark.statements.enrollment import Statement, parse_statement, verify_statement
from keyark.transparency.rejections import Sender
from keyark.v1.ceremony_pb2 import SignedStatement

MAX_BATCH_ITEMS = 256


@dataclass(frozen=True, kw_only=True)
class SentStatement:
    """A statement as the RM hands it on, serialized, with its signature.

    ``call`` is the caller's signed word for the statement, ``approval`` an officer's, where one had to decide.
    Acceptance tells ``sender`` who the client is.
    """

    statement: bytes
    signature: bytes
    call: SignedCall | None = None
    approval: SignedStatement | None = None
    sender: Sender = field(default_factory=Sender, compare=False)


def accept_statement(
    raw: bytes,
    signature: bytes,
    trust_domain: str,
    *,
    known_keys: KnownKeys = NO_KNOWN_KEYS,
    sender: Sender | None = None,
) -> Statement:
    """Parse a statement, check that it is for this trust domain, and verify its proof of possession.

    ``sender`` is told whom the statement names, before anything proves that.

    Raises the errors of ``parse_statement`` and ``verify_statement``, WrongTrustDomainError, and WeakKeyError for a key
    that is on the list of known ones.
    """
    statement = parse_statement(raw)
    if sender is not None:
        sender.claimed = str(statement.caller)
    known_keys.check(statement.signing_spki, field="signing_spki")
    if statement.encryption_spki:
        known_keys.check(statement.encryption_spki, field="encryption_spki")
    if statement.trust_domain != trust_domain or statement.caller.trust_domain != trust_domain:
        raise WrongTrustDomainError(
            f"The statement is for another trust domain; make one for {trust_domain!r} as its enrollment form says."
        )
    verify_statement(statement, signature)
    return statement


def check_same_statement(statement: Statement, recorded_sha256: bytes) -> None:
    """Raise RequestIdReusedError where the recorded request had other content."""
    if statement.sha256 != recorded_sha256:
        raise RequestIdReusedError(
            "This request id was already used for a different request; make a new request id."
        )


def check_batch_size(count: int) -> None:
    """Raise InvalidInputError unless a batch has 1 to 256 items."""
    if not 1 <= count <= MAX_BATCH_ITEMS:
        raise InvalidInputError(
            f"A call may have 1 to {MAX_BATCH_ITEMS} items, but this one has {count}; split it.",
            field="items",
        )
