"""Guards P4: a quorum of shares gives the PIN back, one fewer gives nothing, and a wrong share is named."""

import os
import subprocess
import sys
from itertools import combinations

import pytest
from Crypto.Protocol.SecretSharing import Shamir
from hypothesis import given, settings
from hypothesis import strategies as st

from keyark.custody.shares import (
    MAX_AGENTS,
    QuorumError,
    QuorumNotReachedError,
    QuorumRule,
    Share,
    WrongShareError,
    check_commitment,
    check_quorum,
    combine_shares,
    commitment,
    new_pin,
    split_pin,
)
from keyark.errors import InvalidInputError

ALL_SMALL = [(quorum, agents) for agents in range(1, 6) for quorum in range(1, agents + 1)]


def raw_combination(shares):
    """What the library makes of any shares, without our checks."""
    return b"".join(
        Shamir.combine([(share.index, share.value[half]) for share in shares])
        for half in (slice(0, 16), slice(16, 32))
    )


WITHOUT_SERVER_PACKAGES = """
import sys
sys.modules["Crypto"] = None
import keyark.custody.token, keyark.custody.agents, keyark.custody.envelopes, keyark.custody.matching
"""


def test_agents_need_no_package_of_the_server():
    subprocess.run([sys.executable, "-W", "ignore", "-c", WITHOUT_SERVER_PACKAGES], check=True)


@pytest.mark.parametrize(("quorum", "agents"), ALL_SMALL)
def test_every_subset_of_the_quorum_or_more_gives_the_pin_back(quorum, agents):
    pin = new_pin()
    shares = split_pin(pin, quorum=quorum, agents=agents)
    assert [share.index for share in shares] == list(range(1, agents + 1))
    for size in range(quorum, agents + 1):
        for subset in combinations(shares, size):
            assert combine_shares(subset, quorum=quorum) == pin
            assert combine_shares(subset[::-1], quorum=quorum) == pin


@pytest.mark.parametrize(("quorum", "agents"), [(q, n) for q, n in ALL_SMALL if q > 1])
def test_no_smaller_subset_gives_the_pin_back(quorum, agents):
    pin = new_pin()
    shares = split_pin(pin, quorum=quorum, agents=agents)
    for size in range(1, quorum):
        for subset in combinations(shares, size):
            with pytest.raises(QuorumNotReachedError):
                combine_shares(subset, quorum=quorum)
            raw = raw_combination(subset)
            assert raw != pin
            assert raw[:16] != pin[:16]
            assert raw[16:] != pin[16:]


def test_seven_of_ten():
    pin = new_pin()
    shares = split_pin(pin, quorum=7, agents=10)
    for subset in list(combinations(shares, 7))[::11]:
        assert combine_shares(subset, quorum=7) == pin
        with pytest.raises(QuorumNotReachedError, match="6 of 7"):
            combine_shares(subset[1:], quorum=7)


def test_the_most_agents():
    pin = new_pin()
    shares = split_pin(pin, quorum=3, agents=MAX_AGENTS)
    assert combine_shares([shares[0], shares[127], shares[254]], quorum=3) == pin


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.data())
def test_any_pin_comes_back(pin, data):
    agents = data.draw(st.integers(1, 12))
    quorum = data.draw(st.integers(1, agents))
    shares = split_pin(pin, quorum=quorum, agents=agents)
    chosen = data.draw(st.permutations(shares))[:quorum]
    assert combine_shares(chosen, quorum=quorum) == pin


def test_pins_and_shares_differ_every_time():
    assert new_pin() != new_pin()
    pin = new_pin()
    assert split_pin(pin, quorum=2, agents=3) != split_pin(pin, quorum=2, agents=3)


@pytest.mark.parametrize(
    ("quorum", "agents"), [(3, 2), (0, 3), (-1, 3), (1, 0), (0, 0), (2, 256), (256, 256), (1, -1)]
)
def test_impossible_quorums_are_refused_before_anything_is_split(quorum, agents):
    with pytest.raises(QuorumError):
        split_pin(new_pin(), quorum=quorum, agents=agents)
    for rule in QuorumRule:
        with pytest.raises(QuorumError):
            check_quorum(agents, quorum, rule=rule)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_pins_of_another_size_are_refused(size):
    with pytest.raises(InvalidInputError):
        split_pin(os.urandom(size), quorum=2, agents=3)


def test_a_share_given_twice_counts_once():
    pin = new_pin()
    first, second, _ = split_pin(pin, quorum=2, agents=3)
    with pytest.raises(QuorumNotReachedError, match="1 of 2"):
        combine_shares([first, first], quorum=2)
    assert combine_shares([first, first, second], quorum=2) == pin


def test_two_shares_of_one_index_that_differ_are_refused():
    first, second, _ = split_pin(new_pin(), quorum=2, agents=3)
    with pytest.raises(WrongShareError):
        combine_shares([first, second, Share(first.index, second.value)], quorum=2)


@pytest.mark.parametrize("quorum", [0, -1])
def test_nothing_is_no_quorum(quorum):
    with pytest.raises(QuorumNotReachedError):
        combine_shares([], quorum=quorum)


@pytest.mark.parametrize(("index", "size"), [(0, 32), (-1, 32), (256, 32), (1, 31), (1, 33), (1, 0), (1, 16)])
def test_what_cannot_be_a_share_is_refused(index, size):
    with pytest.raises(WrongShareError):
        Share(index, bytes(size))


def test_a_commitment_holds_for_its_share_only():
    share, other, _ = split_pin(new_pin(), quorum=2, agents=3)
    expected = commitment(share, generation=1, pin_epoch=2)
    assert len(expected) == 32
    check_commitment(share, expected, generation=1, pin_epoch=2, agent="alice")
    changed = Share(share.index, bytes([share.value[0] ^ 1]) + share.value[1:])
    last = Share(share.index, share.value[:-1] + bytes([share.value[-1] ^ 1]))
    for wrong in (other, changed, last, Share(other.index, share.value)):
        with pytest.raises(WrongShareError, match="alice") as caught:
            check_commitment(wrong, expected, generation=1, pin_epoch=2, agent="alice")
        assert caught.value.metadata == {"agent": "alice"}
    for generation, pin_epoch in ((2, 2), (1, 1), (2, 1)):
        with pytest.raises(WrongShareError):
            check_commitment(share, expected, generation=generation, pin_epoch=pin_epoch, agent="alice")


@pytest.mark.parametrize("rule", QuorumRule)
@pytest.mark.parametrize(("agents", "quorum"), [(3, 2), (10, 7), (255, 2), (255, 254)])
def test_usual_quorums_are_accepted_under_every_rule(rule, agents, quorum):
    check_quorum(agents, quorum, rule=rule)


@pytest.mark.parametrize(("agents", "quorum"), [(2, 2), (3, 3), (255, 255)])
def test_a_quorum_of_all_agents_needs_self_approval(agents, quorum):
    with pytest.raises(QuorumError, match="could never recover"):
        check_quorum(agents, quorum, rule=QuorumRule.SEPARATE)
    check_quorum(agents, quorum, rule=QuorumRule.SELF_APPROVAL)


@pytest.mark.parametrize("agents", [1, 2, 3])
@pytest.mark.parametrize("rule", [QuorumRule.SEPARATE, QuorumRule.SELF_APPROVAL])
def test_nobody_recovers_alone_unless_that_was_asked_for(agents, rule):
    with pytest.raises(QuorumError, match="alone"):
        check_quorum(agents, 1, rule=rule)
    check_quorum(agents, 1, rule=QuorumRule.SINGLE_AGENT)
