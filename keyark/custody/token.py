"""The software token: a storage private key that opens with a PIN, and the PIN's shares, one per agent.

The key lies under AES-256-GCM with HKDF-SHA-256 of the PIN; the associated data name generation, PIN epoch
and public key. The PIN is written nowhere. Each share is sealed to its agent's share key. A copy of the token
opens nothing (P4).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import DecodeError

from keyark.contexts import context
from keyark.custody.agents import AgentShareKey, ShareKey
from keyark.custody.shares import (
    MAX_AGENTS,
    SHARE_SIZE,
    QuorumError,
    Share,
    WrongShareError,
    check_commitment,
    combine_shares,
    commitment,
    new_pin,
    split_pin,
)
from keyark.custody.storage import (
    ENCAPSULATED_SIZE,
    PRIVATE_SIZE,
    HybridPublicKey,
    SealError,
    StoragePrivateKey,
    StoragePublicKey,
)
from keyark.errors import InvalidInputError, KeyarkError, Kind
from keyark.records.v1.drm_pb2 import SealedShare, SealSuite, SoftwareToken
from keyark.sizes import HASH_SIZE

TOKEN_LABEL: Final = "keyark/v1/software-token"  # noqa: S105 — a label
TOKEN_KEY_LABEL: Final = "keyark/v1/software-token-key"  # noqa: S105 — a label
SHARE_LABEL: Final = "keyark/v1/share"

_VERSION: Final = 1
_SALT_SIZE: Final = 32
_NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16
_MAX_UINT32: Final = 2**32 - 1


class TokenError(KeyarkError):
    """The token is malformed, altered, or does not open with the PIN that its shares give."""

    reason = "TOKEN"
    kind = Kind.PRECONDITION


def create_software_token(
    agents: Sequence[AgentShareKey], quorum: int, *, generation: int = 1, pin_epoch: int = 1
) -> tuple[SoftwareToken, StoragePublicKey]:
    """Make a storage key generation: its token, with a share for every agent, and its public half.

    The caller has verified the agents' keys and the quorum's policy. Raises what ``seal_software_token`` does.
    """
    private_key = StoragePrivateKey.generate()
    token = seal_software_token(private_key, agents, quorum, generation=generation, pin_epoch=pin_epoch)
    return token, StoragePublicKey.from_bytes(token.public_key)


def seal_software_token(
    private_key: StoragePrivateKey,
    agents: Sequence[AgentShareKey],
    quorum: int,
    *,
    generation: int,
    pin_epoch: int,
) -> SoftwareToken:
    """Put a storage private key under a new PIN, a share of which goes to every agent, in their order.

    A change of agents seals the same generation in the next PIN epoch; both count from 1. Raises QuorumError
    for an impossible quorum or an agent who is named twice, and InvalidInputError for a malformed share key.
    """
    names, keys = {agent.agent for agent in agents}, {agent.public_key for agent in agents}
    if min(len(names), len(keys)) < len(agents):
        raise QuorumError(
            "An agent or a share key is named twice; every agent holds one share.", field="agents"
        )
    if not (1 <= generation <= _MAX_UINT32 and 1 <= pin_epoch <= _MAX_UINT32):
        raise InvalidInputError("Generation and PIN epoch count from 1.", field="generation")
    pin = new_pin()
    shares = split_pin(pin, quorum=quorum, agents=len(agents))
    token = SoftwareToken(
        version=_VERSION,
        generation=generation,
        pin_epoch=pin_epoch,
        public_key=private_key.public_key.to_bytes(),
        salt=os.urandom(_SALT_SIZE),
        nonce=os.urandom(_NONCE_SIZE),
        quorum=quorum,
    )
    token.ciphertext = _cipher(token, pin).encrypt(token.nonce, private_key.to_bytes(), _associated(token))
    token.shares.extend(_seal_share(token, *pair) for pair in zip(agents, shares, strict=True))
    return token


def load_token(data: bytes) -> SoftwareToken:
    """Read a token file (serialized SoftwareToken) and check its structure; raises TokenError."""
    try:
        token = SoftwareToken.FromString(data)
    except DecodeError:
        raise _damaged("is no token") from None
    if token.version != _VERSION:
        raise TokenError("The token file was made by another release; open it with that one.")
    if not (token.generation and token.pin_epoch):
        raise _damaged("has no generation")
    sizes = (len(token.salt), len(token.nonce), len(token.ciphertext))
    if sizes != (_SALT_SIZE, _NONCE_SIZE, PRIVATE_SIZE + _TAG_SIZE):
        raise _damaged("has fields of the wrong size")
    _check_public_key(token.public_key)
    if not 1 <= token.quorum <= len(token.shares) <= MAX_AGENTS:
        raise _damaged("has a quorum that does not fit its shares")
    _check_shares(token.shares)
    return token


def _check_shares(shares: Sequence[SealedShare]) -> None:
    if [share.index for share in shares] != list(range(1, len(shares) + 1)):
        raise _damaged("has shares that are not numbered in order")
    if len({share.agent for share in shares}) < len(shares):
        raise _damaged("has two shares of one agent")
    for share in shares:
        if share.suite != SealSuite.SEAL_SUITE_HPKE_MLKEM768_X25519_SHA256_AES256GCM:
            raise TokenError("The token's shares were sealed by another release; open it with that one.")
        sizes = (len(share.commitment), len(share.ciphertext))
        if sizes != (HASH_SIZE, ENCAPSULATED_SIZE + SHARE_SIZE + _TAG_SIZE):
            raise _damaged("has fields of the wrong size")
        _check_public_key(share.share_public_key)


def _check_public_key(data: bytes) -> None:
    try:
        HybridPublicKey.from_bytes(data)
    except InvalidInputError:
        raise _damaged("has a malformed public key") from None


def _damaged(how: str) -> TokenError:
    return TokenError(f"The token file {how}; restore it from a backup.")


def open_share(token: SoftwareToken, share_key: ShareKey, agent: str) -> Share:
    """Open an agent's (SPIFFE ID) share with the agent's share key.

    Raises WrongShareError, which names the agent, where it does not open or is not what the token commits to.
    """
    sealed = next((share for share in token.shares if share.agent == agent), None)
    if sealed is None:
        raise _wrong(agent, f"{agent} has no share of this token; name one of its agents.")
    try:
        info = _share_info(token, sealed.index, agent)
        share = Share(sealed.index, share_key.decrypt(sealed.ciphertext, info))
    except (SealError, WrongShareError):
        raise _wrong(
            agent,
            f"The share of {agent} does not open with this share key; check that it is the agent's "
            "current one.",
        ) from None
    check_share(token, share)
    return share


def check_share(token: SoftwareToken, share: Share) -> None:
    """Raise WrongShareError, which names the agent, unless the token commits to this share."""
    sealed = next((sealed for sealed in token.shares if sealed.index == share.index), None)
    if sealed is None:
        raise WrongShareError(f"The token has no share {share.index}; open one of its own.")
    check_commitment(
        share,
        sealed.commitment,
        generation=token.generation,
        pin_epoch=token.pin_epoch,
        agent=sealed.agent,
    )


def recover_pin(token: SoftwareToken, shares: Sequence[Share]) -> bytes:
    """Return the PIN (32 bytes) of a quorum of shares, each of which is checked first.

    Raises WrongShareError, which names the agent, and QuorumNotReachedError.
    """
    for share in shares:
        check_share(token, share)
    return combine_shares(shares, quorum=token.quorum)


def open_software_token(token: SoftwareToken, shares: Sequence[Share]) -> StoragePrivateKey:
    """Return the storage private key for a quorum of shares.

    Raises WrongShareError, which names the agent, QuorumNotReachedError, and TokenError for an altered token.
    """
    pin = recover_pin(token, shares)
    try:
        secret = _cipher(token, pin).decrypt(token.nonce, token.ciphertext, _associated(token))
    except (InvalidTag, ValueError):
        raise TokenError(
            "The token does not open with its shares, so one of them was altered; restore a backup."
        ) from None
    private_key = StoragePrivateKey.from_bytes(secret)
    if not hmac.compare_digest(private_key.public_key.to_bytes(), token.public_key):
        raise TokenError("The token's private key is not its public key's; restore a backup.")
    return private_key


def _cipher(token: SoftwareToken, pin: bytes) -> AESGCM:
    return AESGCM(HKDF(hashes.SHA256(), 32, salt=token.salt, info=context(TOKEN_KEY_LABEL)).derive(pin))


def _associated(token: SoftwareToken) -> bytes:
    return context(
        TOKEN_LABEL,
        _u32(token.generation),
        _u32(token.pin_epoch),
        sha256(token.public_key).digest(),
    )


def _share_info(token: SoftwareToken, index: int, agent: str) -> bytes:
    numbers = map(_u32, (token.generation, token.pin_epoch, index))
    return context(SHARE_LABEL, *numbers, agent.encode(), sha256(token.public_key).digest())


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _seal_share(token: SoftwareToken, agent: AgentShareKey, share: Share) -> SealedShare:
    public_key = HybridPublicKey.from_bytes(agent.public_key)
    return SealedShare(
        index=share.index,
        agent=agent.agent,
        share_public_key=agent.public_key,
        share_key_signature=agent.signature,
        agent_certificate=agent.certificate,
        suite=SealSuite.SEAL_SUITE_HPKE_MLKEM768_X25519_SHA256_AES256GCM,
        ciphertext=public_key.encrypt(share.value, _share_info(token, share.index, agent.agent)),
        commitment=commitment(share, generation=token.generation, pin_epoch=token.pin_epoch),
    )


def _wrong(agent: str, message: str) -> WrongShareError:
    return WrongShareError(message, metadata={"agent": agent})
