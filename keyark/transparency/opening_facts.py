"""What a ceremony opens and makes, as the leaf binds it that opened the ceremony.

The leaf holds the digest of one message with every storage key that an approval opens, and the one that comes into
force: ids, quorums, holders and commitments. Nothing of it can be left out of what an agent is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from keyark.canonical import NotCanonicalError, canonical, read_canonical
from keyark.contexts import context
from keyark.errors import InvalidInputError
from keyark.records.v1.drm_pb2 import SoftwareToken
from keyark.sizes import HASH_SIZE
from keyark.transparency.merkle import leaf_hash
from keyark.v1.ceremony_pb2 import OpeningFacts, ShareFacts, StorageKeyFacts

FACTS_LABEL: Final = "keyark/v1/opening-facts"

_VERSION: Final = 1
_MAX_FACTS: Final = 1 << 24


def encode_facts(
    opened: Sequence[SoftwareToken], new: SoftwareToken | None, *, newest_change: bytes
) -> bytes:
    """Return the facts of an opening: the tokens whose shares it takes, and the one that it puts in force.

    ``newest_change`` is the id of the newest change of agents or storage keys that is in force, empty before the first.
    """
    facts = OpeningFacts(
        version=_VERSION,
        storage_keys=[storage_key_facts(token) for token in opened],
        newest_change=newest_change,
    )
    if new is not None:
        facts.new_storage_key.CopyFrom(storage_key_facts(new))
    return canonical(facts)


def storage_key_facts(token: SoftwareToken) -> StorageKeyFacts:
    """Return what the facts say of one token; its sealed key and sealed shares are not needed."""
    return StorageKeyFacts(
        storage_key_id=sha256(token.public_key).digest(),
        generation=token.generation,
        pin_epoch=token.pin_epoch,
        quorum=token.quorum,
        shares=[
            ShareFacts(
                agent=share.agent,
                share_key_id=sha256(share.share_public_key).digest(),
                commitment=share.commitment,
            )
            for share in token.shares
        ],
    )


def change_id(opening_leaf: bytes) -> bytes:
    """Return the id of a change of agents or storage keys, 32 bytes, by the leaf that opened it.

    The leaf binds the facts, and these name the change before: an id stands for all changes up to this one.
    """
    return leaf_hash(opening_leaf)


def facts_digest(raw: bytes) -> bytes:
    """Return what an opening leaf holds of serialized facts, 32 bytes."""
    return sha256(context(FACTS_LABEL, raw)).digest()


def parse_facts(raw: bytes) -> OpeningFacts:
    """Read serialized facts; raises InvalidInputError for anything but their canonical, complete encoding."""
    try:
        facts = read_canonical(OpeningFacts, raw, max_size=_MAX_FACTS)
    except NotCanonicalError:
        raise _malformed("are not in their canonical encoding") from None
    if facts.version != _VERSION:
        raise _malformed(f"are not of version {_VERSION}")
    keys = [*facts.storage_keys, *([facts.new_storage_key] if facts.HasField("new_storage_key") else [])]
    for key in keys:
        _check_key(key)
    if len(facts.newest_change) not in (0, HASH_SIZE):
        raise _malformed("name a change with something that is not an id")
    if len({key.storage_key_id for key in keys}) < len(keys):
        raise _malformed("name a storage key twice")
    return facts


def _check_key(key: StorageKeyFacts) -> None:
    hashes = [key.storage_key_id, *(part for s in key.shares for part in (s.share_key_id, s.commitment))]
    if any(len(value) != HASH_SIZE for value in hashes) or not (key.generation and key.pin_epoch):
        raise _malformed("lack an id, a commitment or a generation")
    holders = {share.agent for share in key.shares}
    if len(holders) < len(key.shares) or "" in holders or not 1 <= key.quorum <= len(key.shares):
        raise _malformed("have holders or a quorum that cannot be")


def _malformed(how: str) -> InvalidInputError:
    return InvalidInputError(
        f"The facts of the ceremony's opening {how}; do not approve it.", field="opening_facts"
    )
