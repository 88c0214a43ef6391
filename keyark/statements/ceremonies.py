"""Key ceremonies in the agents' own signed words: requests, decisions, released shares, recovered keys.

Every one is bound to the ceremony's digest, and what follows its opening to the leaf that opened it too. So nothing
that was made for one ceremony counts in another, and nobody, the archive included, can speak for an agent.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeVar

from cryptography.exceptions import InvalidSignature
from google.protobuf.message import Message

from keyark.contexts import context
from keyark.custody.agents import AgentShareKey
from keyark.custody.shares import Share
from keyark.custody.storage import HybridPrivateKey, HybridPublicKey
from keyark.errors import InvalidInputError, KeyarkError, Kind
from keyark.identity.spiffe import SpiffeId
from keyark.sizes import HASH_SIZE
from keyark.statements.enrollment import is_uuid7
from keyark.statements.signed import IdentitySigner, SignedKind, SignerTrust
from keyark.text.characters import describe, unseen_positions, without_joiners
from keyark.v1.ceremony_pb2 import (
    AgentKey,
    CeremonyStatement,
    CeremonyType,
    Decision,
    DecisionStatement,
    SignedStatement,
)
from keyark.x509.certificates import load_certificate

CEREMONY_LABEL: Final = "keyark/v1/ceremony"
DECISION_LABEL: Final = "keyark/v1/ceremony-decision"
SHARE_RELEASE_LABEL: Final = "keyark/v1/ceremony-share"
RECOVERED_LABEL: Final = "keyark/v1/recovered-key"
AGENT_ROLE: Final = "agent"
MAX_KEYS: Final = 100
MAX_REASON: Final = 500

_VERSION: Final = 1
_MAX_STATEMENT: Final = 1 << 20
_CEREMONY: Final = SignedKind(
    message=CeremonyStatement,
    label=CEREMONY_LABEL,
    version=_VERSION,
    max_size=_MAX_STATEMENT,
    name="request",
    field="statement",
)
_DECISION: Final = SignedKind(
    message=DecisionStatement,
    label=DECISION_LABEL,
    version=_VERSION,
    max_size=_MAX_STATEMENT,
    name="decision",
    field="statement",
)
_FIELDS: Final = {
    CeremonyType.CEREMONY_TYPE_RECOVER_KEYS: {"key_ids", "recipient_public_key"},
    CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS: {"agents", "quorum"},
    CeremonyType.CEREMONY_TYPE_ROTATE_STORAGE_KEY: set[str](),
    CeremonyType.CEREMONY_TYPE_RESEAL_KEYS: {"storage_key_id"},
}
_TYPED: Final = frozenset().union(*_FIELDS.values())

_M = TypeVar("_M", bound=Message)


class CeremonySignatureError(KeyarkError):
    """A request or decision is not signed by the agent that it names."""

    reason = "CEREMONY_SIGNATURE"
    kind = Kind.INVALID


class DecisionMismatchError(KeyarkError):
    """A decision is for another ceremony, or for an opening of it that a restart has ended."""

    reason = "DECISION_MISMATCH"
    kind = Kind.PRECONDITION


@dataclass(frozen=True, kw_only=True)
class AgentTrust(SignerTrust):
    """Whose word counts: recovery agents'."""

    role = AGENT_ROLE

    def is_revoked(self, signed: SignedStatement) -> bool:
        """Whether the signer of words that were accepted was revoked since."""
        return load_certificate(signed.certificate).serial_number in self.revoked.serials


@dataclass(frozen=True, kw_only=True)
class AgentSigner(IdentitySigner):
    """An agent's certificate and its private key, which sign requests and decisions."""


@dataclass(frozen=True, kw_only=True)
class CeremonyRequest:
    """A verified request; ``digest`` (32 bytes) is what all that follows is bound to."""

    message: CeremonyStatement
    digest: bytes
    requester: SpiffeId

    @property
    def ceremony_id(self) -> bytes:
        """The UUIDv7 of the requester, 16 bytes."""
        return self.message.ceremony_id

    @property
    def type(self) -> CeremonyType.ValueType:
        """What the ceremony does."""
        return self.message.type

    @property
    def agents(self) -> list[AgentShareKey]:
        """CHANGE_AGENTS: the new set."""
        return [share_key_of(agent) for agent in self.message.agents]


@dataclass(frozen=True, kw_only=True)
class AgentDecision:
    """A verified decision."""

    message: DecisionStatement
    agent: SpiffeId

    @property
    def approves(self) -> bool:
        """Whether the agent approves."""
        return self.message.decision == Decision.DECISION_APPROVE


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What decisions and shares are bound to: the digest and the hash of the leaf that opened (32 bytes each)."""

    digest: bytes
    leaf_hash: bytes


def ceremony_digest(raw: bytes) -> bytes:
    """Return the digest of a serialized CeremonyStatement, 32 bytes."""
    return sha256(context(CEREMONY_LABEL, raw)).digest()


def sign_request(message: CeremonyStatement, signer: AgentSigner) -> SignedStatement:
    """Complete a statement with version, trust domain and requester, and sign it; raises as ``verify_request``."""
    message.version, message.trust_domain = _VERSION, signer.identity.trust_domain
    message.requester = str(signer.identity)
    check_reason(message.reason)
    _check_request(message)
    return signer.sign_as(_CEREMONY, message)


def verify_request(signed: SignedStatement, trust: AgentTrust, *, at: int) -> CeremonyRequest:
    """Return what an agent asked for, once its words are well-formed and its own at ``at`` (seconds UTC).

    Raises InvalidInputError naming the field, CeremonySignatureError, UnauthenticatedError, IdentityRevokedError
    and CertificateChainError.
    """
    message = _CEREMONY.decode(signed.statement)
    _check_request(message)
    requester = _verify_signer(_CEREMONY, signed, trust, at=at)
    if message.trust_domain != trust.trust_domain or message.requester != str(requester):
        raise CeremonySignatureError(
            f"{requester} signed the request, but it names another requester; ask in your own name."
        )
    return CeremonyRequest(message=message, digest=ceremony_digest(signed.statement), requester=requester)


def sign_decision(
    opening: Opening, signer: AgentSigner, *, decision: Decision.ValueType, time_us: int, reason: str = ""
) -> SignedStatement:
    """Sign what an agent decides of a ceremony, for this opening of it only."""
    if reason:
        check_reason(reason)
    message = DecisionStatement(
        version=_VERSION,
        ceremony_digest=opening.digest,
        opening_leaf_hash=opening.leaf_hash,
        agent=str(signer.identity),
        decision=decision,
        reason=reason,
        time_us=time_us,
    )
    _check_decision(message)
    return signer.sign_as(_DECISION, message)


def verify_decision(
    signed: SignedStatement, opening: Opening, trust: AgentTrust, *, at: int | None = None
) -> AgentDecision:
    """Return an agent's decision if it is for this opening and the agent's own at ``at`` (seconds UTC).

    Without ``at`` the certificate has to be valid at the time that the decision itself tells: for those who look
    at a decision long after it was made. Raises InvalidInputError, DecisionMismatchError,
    CeremonySignatureError, UnauthenticatedError, IdentityRevokedError and CertificateChainError.
    """
    message = _DECISION.decode(signed.statement)
    _check_decision(message)
    moment = message.time_us // 1_000_000 if at is None else at
    agent = _verify_signer(_DECISION, signed, trust, at=moment)
    if message.agent != str(agent):
        raise CeremonySignatureError(
            f"{agent} signed the decision, but it names another agent; decide in your own name."
        )
    if message.ceremony_digest != opening.digest:
        raise DecisionMismatchError("The decision is for another ceremony; show this one, and decide again.")
    if message.opening_leaf_hash != opening.leaf_hash:
        raise DecisionMismatchError(
            "The ceremony was opened again after this decision, because the archive was restarted or its "
            "agents changed. Show it, and decide again."
        )
    return AgentDecision(message=message, agent=agent)


def seal_released_share(
    share: Share, recipient: HybridPublicKey, opening: Opening, storage_key_id: bytes
) -> bytes:
    """Seal an agent's share to a ceremony's one-time key, for this ceremony and this storage key only."""
    plain = bytes([share.index]) + share.value
    return recipient.encrypt(plain, _share_info(opening, storage_key_id))


def open_released_share(
    ciphertext: bytes, private_key: HybridPrivateKey, opening: Opening, storage_key_id: bytes
) -> Share:
    """Open what ``seal_released_share`` sealed; raises SealError, and WrongShareError for what is no share."""
    plain = private_key.decrypt(ciphertext, _share_info(opening, storage_key_id))
    return Share(plain[0] if plain else 0, plain[1:])


def seal_recovered_key(private_key: bytes, recipient: HybridPublicKey, digest: bytes, key_id: bytes) -> bytes:
    """Seal a recovered private key (PKCS#8 DER) to the requester's one-time key."""
    return recipient.encrypt(private_key, context(RECOVERED_LABEL, digest, key_id))


def open_recovered_key(
    ciphertext: bytes, private_key: HybridPrivateKey, digest: bytes, key_id: bytes
) -> bytes:
    """Open what ``seal_recovered_key`` sealed; raises SealError."""
    return private_key.decrypt(ciphertext, context(RECOVERED_LABEL, digest, key_id))


def share_key_of(agent: AgentKey) -> AgentShareKey:
    """Return an agent's share key from its message; verify it before use."""
    return AgentShareKey(
        agent=agent.agent,
        certificate=agent.certificate,
        public_key=agent.share_public_key,
        signature=agent.signature,
    )


def agent_key_of(agent: AgentShareKey) -> AgentKey:
    """Return the message of an agent's share key."""
    return AgentKey(
        agent=agent.agent,
        certificate=agent.certificate,
        share_public_key=agent.public_key,
        signature=agent.signature,
    )


def check_reason(reason: str) -> str:
    """Return a reason that a person gives; raises InvalidInputError unless it has 1 to 500 characters that are seen."""
    if position := next(unseen_positions(_check_kept_reason(reason)), -1) + 1:
        raise InvalidInputError(
            f"The reason contains {describe(reason[position - 1])}, which is invisible; leave it out.",
            field="reason",
        )
    return reason


def _check_kept_reason(reason: str) -> str:
    """Check a reason in signed words, which earlier releases may have taken; what shows it escapes what is not seen."""
    if not 1 <= len(reason) <= MAX_REASON or not without_joiners(reason).isprintable() or not reason.strip():
        raise InvalidInputError(
            f"The reason has 1 to {MAX_REASON} printable characters; say in one line why.", field="reason"
        )
    return reason


def _share_info(opening: Opening, storage_key_id: bytes) -> bytes:
    return context(SHARE_RELEASE_LABEL, opening.digest, opening.leaf_hash, storage_key_id)


def _verify_signer(kind: SignedKind[_M], signed: SignedStatement, trust: AgentTrust, *, at: int) -> SpiffeId:
    signer = trust.signer(signed.certificate, at=at)
    try:
        kind.verify(signed.statement, signed.signature, signer.public_key)
    except InvalidSignature:
        raise CeremonySignatureError(
            f"The signature does not verify under the certificate of {signer.identity}; sign the very bytes that are "
            "sent."
        ) from None
    return signer.identity


def _check_request(message: CeremonyStatement) -> None:
    if message.type not in _FIELDS:
        raise InvalidInputError("The type of the ceremony is not known; upgrade keyark.", field="type")
    if not is_uuid7(message.ceremony_id):
        raise InvalidInputError(
            "The ceremony id is not a UUIDv7 of 16 bytes; make a new one.", field="ceremony_id"
        )
    SpiffeId.parse(message.requester, field="requester")
    _check_kept_reason(message.reason)
    present = {field.name for field, _ in message.ListFields()} & _TYPED
    if present != _FIELDS[message.type]:
        odd = ", ".join(sorted(present ^ _FIELDS[message.type]))
        raise InvalidInputError(f"Fields that a ceremony of this type lacks or has not: {odd}.", field=odd)
    _check_keys(message)
    if message.storage_key_id and len(message.storage_key_id) != HASH_SIZE:
        raise InvalidInputError("A storage key id has 32 bytes.", field="storage_key_id")


def _check_keys(message: CeremonyStatement) -> None:
    ids = list(message.key_ids)
    if len(ids) > MAX_KEYS or any(len(key_id) != HASH_SIZE for key_id in ids) or ids != sorted(set(ids)):
        raise InvalidInputError(
            f"Key ids are 1 to {MAX_KEYS}, of 32 bytes each, ascending, none twice; split the request.",
            field="key_ids",
        )
    if message.recipient_public_key:
        HybridPublicKey.from_bytes(message.recipient_public_key)


def _check_decision(message: DecisionStatement) -> None:
    if message.decision not in (Decision.DECISION_APPROVE, Decision.DECISION_REJECT):
        raise InvalidInputError("A decision approves or rejects.", field="decision")
    if message.decision == Decision.DECISION_REJECT:
        _check_kept_reason(message.reason)
    elif message.reason:
        raise InvalidInputError("An approval gives no reason.", field="reason")
    if message.time_us <= 0:
        raise InvalidInputError("A decision says when it was made.", field="time_us")
