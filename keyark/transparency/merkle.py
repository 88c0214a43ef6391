"""Merkle trees as in RFC 9162 section 2.1: hashing, growing, proving, verifying.

A tree is told by its perfect subtrees: node (level, position) covers the 2**level leaves from
position * 2**level on. These never change once complete; everything else, the right edge, follows from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

from keyark.errors import KeyarkError, Kind
from keyark.sizes import HASH_SIZE

EMPTY_ROOT: Final = sha256(b"").digest()

NodeReader: TypeAlias = Callable[[int, int], bytes]
"""Returns the hash (32 bytes) of the perfect subtree at (level, position)."""


class InclusionProofError(KeyarkError):
    """The proof does not show that the leaf is in the tree."""

    reason = "INCLUSION_PROOF_INVALID"
    kind = Kind.INVALID


class ConsistencyProofError(KeyarkError):
    """The proof does not show that one tree is a prefix of the other."""

    reason = "CONSISTENCY_PROOF_INVALID"
    kind = Kind.INVALID


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash (32 bytes) of a leaf (RFC 9162 section 2.1.1)."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash (32 bytes) of the node above two others (RFC 9162 section 2.1.1)."""
    return sha256(b"\x01" + left + right).digest()


def verify_inclusion(
    *, leaf_hash: bytes, index: int, tree_size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that a leaf is in a tree (RFC 9162 section 2.1.3.2).

    ``leaf_hash``, ``root`` and each hash of ``proof`` are 32 bytes, ``index`` counts from 0. Raises
    InclusionProofError where the proof is malformed or leads to another root.
    """
    if root_from_inclusion(leaf_hash=leaf_hash, index=index, tree_size=tree_size, proof=proof) != root:
        raise InclusionProofError("The inclusion proof leads to another root; the leaf is not in this tree.")


def root_from_inclusion(*, leaf_hash: bytes, index: int, tree_size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root (32 bytes) that a proof leads to; raises InclusionProofError if it is malformed."""
    if not 0 <= index < tree_size:
        raise InclusionProofError("The leaf's index lies outside of the tree; ask the log for a newer proof.")
    if not _are_hashes((leaf_hash, *proof)):
        raise InclusionProofError("The inclusion proof holds something else than SHA-256 hashes.")
    position, last, digest = index, tree_size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            raise InclusionProofError("The inclusion proof is too long for this tree.")
        if position & 1 or position == last:
            digest = node_hash(sibling, digest)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise InclusionProofError("The inclusion proof is too short for this tree.")
    return digest


def verify_consistency(
    *, first_size: int, second_size: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the first tree is a prefix of the second (RFC 9162 section 2.1.4.2).

    Roots and each hash of ``proof`` are 32 bytes. The empty tree is a prefix of every tree, without proof.
    Raises ConsistencyProofError where the proof is malformed or leads to other roots.
    """
    if not 0 <= first_size <= second_size:
        raise ConsistencyProofError("A tree cannot follow a larger one; the log may have lost leaves.")
    if not _are_hashes((first_root, second_root, *proof)):
        raise ConsistencyProofError("The consistency proof holds something else than SHA-256 hashes.")
    if first_size in (0, second_size):
        expected = EMPTY_ROOT if first_size == 0 else second_root
        if proof or first_root != expected or (second_size == 0 and second_root != EMPTY_ROOT):
            raise ConsistencyProofError("The consistency proof does not fit trees that need none.")
        return
    if _roots_from_consistency(first_size, second_size, first_root, proof) != (first_root, second_root):
        raise ConsistencyProofError(
            "The consistency proof leads to other roots; the trees contradict each other."
        )


def _roots_from_consistency(
    first_size: int, second_size: int, first_root: bytes, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    path = list(proof)
    if first_size & (first_size - 1) == 0:
        path.insert(0, first_root)  # a perfect tree is itself the node that the proof starts from
    position, last = first_size - 1, second_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    if not path:
        raise ConsistencyProofError("The consistency proof is too short for these trees.")
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ConsistencyProofError("The consistency proof is too long for these trees.")
        if position & 1 or position == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise ConsistencyProofError("The consistency proof is too short for these trees.")
    return first, second


def _are_hashes(values: Sequence[bytes]) -> bool:
    return all(len(value) == HASH_SIZE for value in values)


class TreeHasher:
    """A tree that grows leaf by leaf; it holds only the largest perfect subtrees, from left to right."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)

    @classmethod
    def read(cls, size: int, node: NodeReader) -> TreeHasher:
        """Return the hasher of the tree of this many leaves, from its nodes."""
        levels = [level for level in reversed(range(size.bit_length())) if size >> level & 1]
        return cls(size, [node(level, (size >> level) - 1) for level in levels])

    @classmethod
    def before(cls, index: int, *, tree_size: int, proof: Sequence[bytes]) -> TreeHasher:
        """Return the hasher of the leaves before one, from a proof of inclusion of that leaf.

        On the leaf's way to the root, the siblings to its left are the perfect subtrees of all that comes before it.
        Nothing is verified: a proof that lies leads to a tree that no true one contains, which only a later proof
        shows. Raises InclusionProofError where the proof is malformed.
        """
        if not 0 <= index < tree_size or not _are_hashes(proof):
            raise InclusionProofError("The inclusion proof is malformed; ask the log for another one.")
        peaks, start, end = [], 0, tree_size
        for sibling in reversed(proof):
            if end - start < 2:
                raise InclusionProofError("The inclusion proof is too long for this tree.")
            middle = _middle(start, end)
            if index < middle:
                end = middle
            else:
                peaks.append(sibling)
                start = middle
        if end - start > 1:
            raise InclusionProofError("The inclusion proof is too short for this tree.")
        return cls(index, peaks)

    def copy(self) -> TreeHasher:
        """Return a hasher of the same tree that grows on its own."""
        return TreeHasher(self.size, self._peaks)

    def append(self, leaf: bytes) -> list[bytes]:
        """Add a leaf; returns the perfect subtrees that it completes, from the leaf's hash upwards."""
        completed = [leaf_hash(leaf)]
        rest = self.size
        while rest & 1:
            completed.append(node_hash(self._peaks.pop(), completed[-1]))
            rest >>= 1
        self._peaks.append(completed[-1])
        self.size += 1
        return completed

    def root(self) -> bytes:
        """Return the root (32 bytes) of the tree so far."""
        if not self._peaks:
            return EMPTY_ROOT
        digest = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            digest = node_hash(peak, digest)
        return digest


class Tree:
    """The tree of a given size; remembers its right edge, so that many proofs under one head are cheap."""

    def __init__(self, size: int, node: NodeReader) -> None:
        self.size = size
        self._node = node
        self._edge: dict[int, bytes] = {}

    def root(self) -> bytes:
        """Return the root (32 bytes)."""
        return self._subtree(0, self.size) if self.size else EMPTY_ROOT

    def inclusion_proof(self, index: int) -> list[bytes]:
        """Prove that the leaf at ``index``, below the size, is in the tree (RFC 9162 section 2.1.3.1)."""
        path = []
        start, end = 0, self.size
        while end - start > 1:
            middle = _middle(start, end)
            if index < middle:
                path.append(self._subtree(middle, end))
                end = middle
            else:
                path.append(self._subtree(start, middle))
                start = middle
        path.reverse()
        return path

    def consistency_proof(self, first_size: int) -> list[bytes]:
        """Prove that the tree of ``first_size``, at most this size, is a prefix (RFC 9162 section 2.1.4.1).

        The proof is empty where none is needed: from the empty tree, and from a tree to itself.
        """
        if first_size in (0, self.size):
            return []
        path = []
        start, end = 0, self.size
        while first_size != end:
            middle = _middle(start, end)
            if first_size <= middle:
                path.append(self._subtree(middle, end))
                end = middle
            else:
                path.append(self._subtree(start, middle))
                start = middle
        if start:  # otherwise it is the first tree itself, whose root the verifier has
            path.append(self._subtree(start, end))
        path.reverse()
        return path

    def _subtree(self, start: int, end: int) -> bytes:
        """Hash the leaves from start to end: a perfect subtree, or one that reaches the tree's right edge."""
        width = end - start
        if width & (width - 1) == 0:
            level = width.bit_length() - 1
            return self._node(level, start >> level)
        if start not in self._edge:
            middle = _middle(start, end)
            self._edge[start] = node_hash(self._subtree(start, middle), self._subtree(middle, end))
        return self._edge[start]


def _middle(start: int, end: int) -> int:
    """Return where a subtree of two leaves and more is split: the largest power of two below its width."""
    return start + (1 << ((end - start - 1).bit_length() - 1))
