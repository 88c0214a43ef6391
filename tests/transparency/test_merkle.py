"""P6 rests on this: the tree is that of RFC 9162, and no proof passes that does not prove."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.transparency.merkle import (
    EMPTY_ROOT,
    ConsistencyProofError,
    InclusionProofError,
    Tree,
    TreeHasher,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)
from tests.support.stories.transparency import reference_path, reference_root, reference_subproof

VECTORS = Path(__file__).parents[1] / "vectors" / "merkle"


def load(name: str) -> list:
    return [pytest.param(vector, id=vector["name"]) for vector in json.loads((VECTORS / name).read_text())]


def proof_of(vector: dict) -> list[bytes]:
    return [b64decode(value) for value in vector["proof"] or ()]


@pytest.mark.parametrize("vector", load("inclusion.json"))
def test_published_inclusion_proofs(vector):
    def verify() -> None:
        verify_inclusion(
            leaf_hash=b64decode(vector["leafHash"] or ""),
            index=vector["leafIdx"],
            tree_size=vector["treeSize"],
            proof=proof_of(vector),
            root=b64decode(vector["root"] or ""),
        )

    if vector["wantErr"]:
        with pytest.raises(InclusionProofError):
            verify()
    else:
        verify()


@pytest.mark.parametrize("vector", load("consistency.json"))
def test_published_consistency_proofs(vector):
    def verify() -> None:
        verify_consistency(
            first_size=vector["size1"],
            second_size=vector["size2"],
            first_root=b64decode(vector["root1"] or ""),
            second_root=b64decode(vector["root2"] or ""),
            proof=proof_of(vector),
        )

    if vector["wantErr"]:
        with pytest.raises(ConsistencyProofError):
            verify()
    else:
        verify()


def grown(leaves: list[bytes]) -> tuple[TreeHasher, dict[tuple[int, int], bytes]]:
    hasher, nodes = TreeHasher(), {}
    for index, leaf in enumerate(leaves):
        for level, node in enumerate(hasher.append(leaf)):
            nodes[level, index >> level] = node
    return hasher, nodes


@pytest.mark.parametrize("size", [*range(20), 31, 32, 33, 100])
def test_tree_and_proofs_are_those_of_the_rfc(size):
    leaves = [b"%d" % number for number in range(size)]
    hasher, nodes = grown(leaves)
    tree = Tree(size, lambda level, position: nodes[level, position])
    assert hasher.root() == tree.root() == reference_root(leaves)
    for index in range(size):
        assert tree.inclusion_proof(index) == reference_path(index, leaves)
    for first_size in range(1, size + 1):
        assert tree.consistency_proof(first_size) == reference_subproof(first_size, leaves)


@pytest.mark.parametrize("size", range(40))
def test_a_tree_that_is_read_again_grows_as_before(size):
    leaves = [b"%d" % number for number in range(size + 9)]
    _, nodes = grown(leaves[:size])
    hasher = TreeHasher.read(size, lambda level, position: nodes[level, position])
    for leaf in leaves[size:]:
        hasher.append(leaf)
    assert hasher.root() == reference_root(leaves)


@given(st.data())
def test_a_proof_with_any_change_is_refused(data):
    leaves = [b"%d" % number for number in range(data.draw(st.integers(1, 40), "size"))]
    size, root = len(leaves), reference_root(leaves)
    index = data.draw(st.integers(0, size - 1), "index")
    proof = reference_path(index, leaves)
    change = data.draw(st.sampled_from(["leaf", "root", "drop", "add", "flip", "short"]), "change")
    leaf, position = leaf_hash(leaves[index]), data.draw(st.integers(0, max(len(proof) - 1, 0)), "position")
    if change == "leaf":
        leaf = leaf_hash(b"another")
    elif change == "root":
        root = leaf_hash(b"another")
    elif change == "add":
        proof.insert(position, bytes(32))
    elif not proof:
        return
    elif change == "drop":
        del proof[position]
    elif change == "flip":
        proof[position] = bytes([proof[position][0] ^ 1]) + proof[position][1:]
    else:
        proof[position] = proof[position][:-1]
    with pytest.raises(InclusionProofError):
        verify_inclusion(leaf_hash=leaf, index=index, tree_size=size, proof=proof, root=root)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 40), st.booleans())
def test_a_tree_with_another_past_is_refused(one, other, at, omit):
    first_size, second_size = sorted((one, other))
    leaves = [b"%d" % number for number in range(second_size)]
    forked = list(leaves)
    forked[at % first_size] = b"forged"
    proof = reference_subproof(first_size, forked)
    if omit and proof:
        proof.pop()
    with pytest.raises(ConsistencyProofError):
        verify_consistency(
            first_size=first_size,
            second_size=second_size,
            first_root=reference_root(leaves[:first_size]),
            second_root=reference_root(forked),
            proof=proof,
        )


def test_the_empty_tree_is_the_past_of_every_tree_without_proof():
    root = reference_root([b"a", b"b"])
    verify_consistency(first_size=0, second_size=2, first_root=EMPTY_ROOT, second_root=root, proof=[])
    verify_consistency(first_size=0, second_size=0, first_root=EMPTY_ROOT, second_root=EMPTY_ROOT, proof=[])


@pytest.mark.parametrize(
    ("first_root", "second_size", "second_root", "proof"),
    [
        (bytes(32), 2, bytes(32), []),
        (EMPTY_ROOT, 2, bytes(32), [bytes(32)]),
        (EMPTY_ROOT, 0, bytes(32), []),
        (EMPTY_ROOT, -1, bytes(32), []),
        (EMPTY_ROOT, 2, bytes(31), []),
    ],
)
def test_the_empty_tree_takes_no_other_root_and_no_proof(first_root, second_size, second_root, proof):
    with pytest.raises(ConsistencyProofError):
        verify_consistency(
            first_size=0, second_size=second_size, first_root=first_root, second_root=second_root, proof=proof
        )


def test_hashes_of_other_sizes_do_not_make_up_for_one_another():
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    with pytest.raises(InclusionProofError, match="SHA-256"):
        verify_inclusion(
            leaf_hash=left[:31], index=0, tree_size=2, proof=[left[31:] + right], root=node_hash(left, right)
        )


def test_a_proof_in_a_larger_tree_does_not_fit_a_smaller_one():
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    with pytest.raises(InclusionProofError, match="too long"):
        verify_inclusion(leaf_hash=right, index=0, tree_size=1, proof=[left], root=node_hash(left, right))


@pytest.mark.parametrize("index", [-1, 1, 2])
def test_an_index_outside_of_the_tree_is_refused(index):
    leaf = leaf_hash(b"a")
    with pytest.raises(InclusionProofError, match="outside"):
        verify_inclusion(leaf_hash=leaf, index=index, tree_size=1, proof=[], root=leaf)


def test_a_tree_is_taken_up_before_any_leaf_from_its_inclusion_proof():
    leaves = [bytes([number]) for number in range(40)]
    hashers = [TreeHasher()]
    nodes = {}
    for number, leaf in enumerate(leaves):
        grown = hashers[-1].copy()
        for level, digest in enumerate(grown.append(leaf)):
            nodes[level, number >> level] = digest
        hashers.append(grown)
    for size in range(1, len(leaves) + 1):
        tree = Tree(size, lambda level, position: nodes[level, position])
        for index in range(size):
            taken = TreeHasher.before(index, tree_size=size, proof=tree.inclusion_proof(index))
            for leaf in leaves[index:size]:
                taken.append(leaf)
            assert taken.root() == hashers[size].root()


@pytest.mark.parametrize(
    ("index", "size", "proof"),
    [(4, 4, []), (-1, 4, []), (1, 4, [bytes(32)]), (1, 4, [bytes(32)] * 3), (1, 2, [b"short"])],
)
def test_no_tree_is_taken_up_from_a_malformed_proof(index, size, proof):
    with pytest.raises(InclusionProofError):
        TreeHasher.before(index, tree_size=size, proof=proof)
