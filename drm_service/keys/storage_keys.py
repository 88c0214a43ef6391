"""The storage key generations: their tokens in the store, and the one that keys are archived under."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from drm_service.records import TOKENS
from keyark.custody.storage import StoragePublicKey
from keyark.custody.token import TokenError, load_token
from keyark.errors import NotFoundError
from keyark.records.v1.drm_pb2 import SoftwareToken
from keyark.store import ReadTransaction, WriteTransaction

MAX_GENERATIONS: Final = 1000


class StorageKeys:
    """What a running DRM knows of its storage keys: public halves, and which one is in force."""

    def __init__(self, tokens: Sequence[SoftwareToken]) -> None:
        """Take the tokens of all generations, the newest last; raises TokenError for none."""
        self.replace(tokens)

    def replace(self, tokens: Sequence[SoftwareToken]) -> None:
        """Go on with these tokens; raises TokenError for none."""
        if not tokens:
            raise TokenError("The store has no storage key; restore it from a backup.")
        self._keys = [StoragePublicKey.from_bytes(token.public_key) for token in tokens]

    @property
    def active_id(self) -> bytes:
        """Id of the storage key that keys are archived under now, 32 bytes."""
        return self._keys[-1].key_id

    def public_key(self, key_id: bytes) -> bytes:
        """Return the public half of a storage key id, 1216 bytes; raises NotFoundError."""
        for key in self._keys:
            if key.key_id == key_id:
                return key.to_bytes()
        raise NotFoundError("There is no storage key with this id; `keyark agents list` lists them.")

    @property
    def public_keys(self) -> list[bytes]:
        """The public halves of all generations, 1216 bytes each."""
        return [key.to_bytes() for key in self._keys]


def read_tokens(txn: ReadTransaction) -> list[SoftwareToken]:
    """Return the tokens of all generations, the newest last; raises TokenError for a damaged one."""
    return [load_token(value) for _, value in txn.scan(TOKENS, limit=MAX_GENERATIONS)]


def storage_key_id(token: SoftwareToken) -> bytes:
    """Return the id of a token's storage key: SHA-256 of its public half."""
    return StoragePublicKey.from_bytes(token.public_key).key_id


def put_token(txn: WriteTransaction, token: SoftwareToken) -> None:
    """Write a generation's token in place of its older one."""
    txn.put(TOKENS, token.generation.to_bytes(4, "big"), token.SerializeToString())
