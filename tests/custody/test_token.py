"""Guards P4: the storage private key opens with the PIN that a quorum of shares gives, and with nothing else."""

from dataclasses import replace
from hashlib import sha256
from itertools import combinations

import pytest
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from keyark.contexts import context
from keyark.custody.shares import QuorumError, QuorumNotReachedError, Share, WrongShareError
from keyark.custody.storage import SealError, StoragePrivateKey
from keyark.custody.token import (
    SHARE_LABEL,
    TOKEN_KEY_LABEL,
    TOKEN_LABEL,
    TokenError,
    check_share,
    create_software_token,
    load_token,
    open_share,
    open_software_token,
    recover_pin,
    seal_software_token,
)
from keyark.errors import InvalidInputError, KeyarkError
from keyark.records.v1.drm_pb2 import SoftwareToken
from tests.support.keys.crypto import recovery_agent, recovery_agents


def create(agents, quorum, **options):
    people = recovery_agents(agents)
    token, public_key = create_software_token([agent.public for agent in people], quorum, **options)
    return token, public_key, [open_share(token, agent.share_key, agent.name) for agent in people]


TOKEN, PUBLIC_KEY, SHARES = create(3, 2)
AGENTS = recovery_agents(3)


def opens_with(token, pin):
    """The private key that these 32 bytes open, computed apart from the code."""
    numbers = token.generation.to_bytes(4, "big"), token.pin_epoch.to_bytes(4, "big")
    associated = context(TOKEN_LABEL, *numbers, sha256(token.public_key).digest())
    key = HKDF(hashes.SHA256(), 32, salt=token.salt, info=context(TOKEN_KEY_LABEL)).derive(pin)
    return AESGCM(key).decrypt(token.nonce, token.ciphertext, associated)


def copy(token, **fields):
    changed = SoftwareToken.FromString(token.SerializeToString())
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


@pytest.mark.parametrize(("quorum", "agents"), [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (2, 4), (3, 4)])
def test_every_quorum_opens_what_the_public_half_sealed(quorum, agents):
    token, public_key, shares = create(agents, quorum)
    sealed = public_key.seal(b"archived key", b"leaf")
    for subset in combinations(shares, quorum):
        assert open_software_token(token, subset).open(sealed, b"leaf") == b"archived key"
    assert open_software_token(token, shares).public_key.key_id == public_key.key_id


def test_seven_of_ten():
    token, public_key, shares = create(10, 7)
    assert open_software_token(token, shares[3:]).public_key.key_id == public_key.key_id
    with pytest.raises(QuorumNotReachedError):
        open_software_token(token, shares[4:])


@pytest.mark.parametrize(("quorum", "agents"), [(2, 2), (2, 3), (3, 3), (3, 4)])
def test_one_share_fewer_opens_nothing(quorum, agents):
    token, _, shares = create(agents, quorum)
    for subset in combinations(shares, quorum - 1):
        with pytest.raises(QuorumNotReachedError):
            open_software_token(token, subset)
        raw = b"".join(
            Shamir.combine([(share.index, share.value[half]) for share in subset])
            for half in (slice(0, 16), slice(16, 32))
        )
        with pytest.raises(InvalidTag):
            opens_with(token, raw)


def test_a_copy_of_the_token_and_no_share_opens_nothing():
    with pytest.raises(QuorumNotReachedError, match="0 of 2"):
        open_software_token(TOKEN, [])


def test_the_pin_opens_the_token_as_the_design_says():
    secret = opens_with(TOKEN, recover_pin(TOKEN, SHARES[:2]))
    assert StoragePrivateKey.from_bytes(secret).public_key.to_bytes() == TOKEN.public_key


def test_the_token_holds_neither_pin_nor_shares_nor_key():
    encoded, pin = TOKEN.SerializeToString(), recover_pin(TOKEN, SHARES)
    private_key = open_software_token(TOKEN, SHARES).to_bytes()
    secrets = [pin, private_key[:64], private_key[64:], *(share.value for share in SHARES)]
    for secret in secrets:
        for start in range(0, len(secret), 16):
            assert secret[start : start + 16] not in encoded


def test_generation_and_epoch_are_kept():
    token, _, shares = create(3, 2, generation=4, pin_epoch=7)
    assert (token.generation, token.pin_epoch, token.version, token.quorum) == (4, 7, 1, 2)
    open_software_token(token, shares)


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0), (2**32, 1), (1, 2**32), (-1, 1)])
def test_generations_and_epochs_out_of_range_are_refused(numbers):
    with pytest.raises(InvalidInputError):
        create(3, 2, generation=numbers[0], pin_epoch=numbers[1])


def test_a_change_of_agents_keeps_the_key_and_voids_the_old_shares():
    private_key = open_software_token(TOKEN, SHARES)
    people = [recovery_agent("dave"), AGENTS[0], AGENTS[1]]
    changed = seal_software_token(private_key, [a.public for a in people], 3, generation=1, pin_epoch=2)
    assert changed.public_key == TOKEN.public_key
    shares = [open_share(changed, agent.share_key, agent.name) for agent in people]
    assert open_software_token(changed, shares).to_bytes() == private_key.to_bytes()
    for share in SHARES:
        with pytest.raises(WrongShareError):
            check_share(changed, share)
    with pytest.raises(WrongShareError, match="agent-3"):
        open_share(changed, AGENTS[2].share_key, AGENTS[2].name)


@pytest.mark.parametrize("quorum", [0, 4, -1])
def test_impossible_quorums_make_no_token(quorum):
    with pytest.raises(QuorumError):
        create(3, quorum)


def test_no_agents_make_no_token():
    with pytest.raises(QuorumError):
        create_software_token([], 1)


def test_nobody_holds_two_shares():
    alice, bob = AGENTS[0].public, AGENTS[1].public
    for agents in ([alice, alice], [alice, replace(bob, agent=alice.agent)]):
        with pytest.raises(QuorumError, match="twice"):
            create_software_token(agents, 2)
    with pytest.raises(QuorumError, match="twice"):
        create_software_token([alice, replace(bob, public_key=alice.public_key)], 2)


def test_a_malformed_share_key_makes_no_token():
    with pytest.raises(InvalidInputError):
        create_software_token([AGENTS[0].public, replace(AGENTS[1].public, public_key=b"junk")], 2)


# Shares


def test_an_agent_opens_its_own_share_only():
    for agent, share in zip(AGENTS, SHARES, strict=True):
        assert open_share(TOKEN, agent.share_key, agent.name) == share
        for other in AGENTS:
            if other is not agent:
                with pytest.raises(WrongShareError) as caught:
                    open_share(TOKEN, agent.share_key, other.name)
                assert other.name in caught.value.message
                assert caught.value.metadata == {"agent": other.name}


def test_who_is_no_agent_holds_no_share():
    stranger = recovery_agent("stranger")
    with pytest.raises(WrongShareError, match="stranger has no share"):
        open_share(TOKEN, stranger.share_key, stranger.name)


def test_shares_of_another_token_are_named():
    _, _, others = create(3, 2)
    for index, other in enumerate(others):
        with pytest.raises(WrongShareError, match=f"agent-{index + 1}"):
            open_software_token(TOKEN, [*SHARES[:index], other, *SHARES[index + 1 :]])


def test_a_share_of_an_index_that_the_token_lacks_is_refused():
    with pytest.raises(WrongShareError, match="no share 4"):
        open_software_token(TOKEN, [*SHARES, Share(4, SHARES[0].value)])


def test_a_share_under_another_index_is_refused():
    with pytest.raises(WrongShareError, match="agent-2"):
        check_share(TOKEN, Share(2, SHARES[0].value))


def test_the_same_share_twice_is_no_quorum():
    with pytest.raises(QuorumNotReachedError):
        open_software_token(TOKEN, [SHARES[0], SHARES[0]])


def test_a_sealed_share_is_bound_to_what_it_is_of():
    changes = [{"generation": 2}, {"pin_epoch": 2}, {"public_key": create(3, 2)[0].public_key}]
    for fields in changes:
        with pytest.raises(WrongShareError, match="agent-1"):
            open_share(copy(TOKEN, **fields), AGENTS[0].share_key, AGENTS[0].name)
    renumbered = copy(TOKEN)
    renumbered.shares[0].index = 2
    renamed = copy(TOKEN)
    renamed.shares[0].agent = "spiffe://example.org/agent/other"
    for token, agent in ((renumbered, AGENTS[0].name), (renamed, renamed.shares[0].agent)):
        with pytest.raises(WrongShareError):
            open_share(token, AGENTS[0].share_key, agent)


def test_a_share_that_the_token_does_not_commit_to_is_refused():
    """Sealed rightly by who made the token, and still not the share."""
    changed = copy(TOKEN)
    numbers = (number.to_bytes(4, "big") for number in (1, 1, 1))
    info = context(SHARE_LABEL, *numbers, AGENTS[0].name.encode(), sha256(TOKEN.public_key).digest())
    public_key = AGENTS[0].share_key.public_key
    changed.shares[0].ciphertext = public_key.encrypt(SHARES[0].value, info)
    assert open_share(changed, AGENTS[0].share_key, AGENTS[0].name) == SHARES[0]
    for value in (bytes(32), SHARES[0].value + b"\0", b""):
        changed.shares[0].ciphertext = public_key.encrypt(value, info)
        with pytest.raises(WrongShareError, match="agent-1"):
            open_share(changed, AGENTS[0].share_key, AGENTS[0].name)


# Altered tokens


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_bit_flip_in_the_token_is_noticed(data):
    changed = copy(TOKEN)
    name = data.draw(st.sampled_from(["public_key", "salt", "nonce", "ciphertext"]))
    value = bytearray(getattr(changed, name))
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    value[bit // 8] ^= 1 << bit % 8
    setattr(changed, name, bytes(value))
    with pytest.raises(TokenError):
        open_software_token(load_token(changed.SerializeToString()), SHARES)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_bit_flip_in_a_sealed_share_is_noticed(data):
    changed = copy(TOKEN)
    name = data.draw(st.sampled_from(["ciphertext", "commitment"]))
    value = bytearray(getattr(changed.shares[1], name))
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    value[bit // 8] ^= 1 << bit % 8
    setattr(changed.shares[1], name, bytes(value))
    with pytest.raises(WrongShareError, match="agent-2"):
        open_share(load_token(changed.SerializeToString()), AGENTS[1].share_key, AGENTS[1].name)


@pytest.mark.parametrize("fields", [{"generation": 2}, {"pin_epoch": 2}])
def test_generation_and_epoch_cannot_be_changed(fields):
    with pytest.raises(WrongShareError):
        open_software_token(copy(TOKEN, **fields), SHARES)


def test_a_lowered_quorum_opens_nothing():
    with pytest.raises(TokenError):
        open_software_token(copy(TOKEN, quorum=1), SHARES[:1])


def test_a_public_key_that_is_not_the_private_keys_is_noticed():
    """Whoever knows the PIN could do this; what is sealed to that public key would be lost."""
    token, _, shares = create(1, 1)
    pin, other = shares[0].value, StoragePrivateKey.generate()
    numbers = token.generation.to_bytes(4, "big"), token.pin_epoch.to_bytes(4, "big")
    associated = context(TOKEN_LABEL, *numbers, sha256(token.public_key).digest())
    key = HKDF(hashes.SHA256(), 32, salt=token.salt, info=context(TOKEN_KEY_LABEL)).derive(pin)
    token.ciphertext = AESGCM(key).encrypt(token.nonce, other.to_bytes(), associated)
    with pytest.raises(TokenError, match="public key"):
        open_software_token(token, shares)


def test_a_token_survives_its_file():
    assert load_token(TOKEN.SerializeToString()) == TOKEN


def damaged_tokens():
    cases = {
        "version 0": {"version": 0},
        "version 2": {"version": 2},
        "no generation": {"generation": 0},
        "no epoch": {"pin_epoch": 0},
        "short salt": {"salt": TOKEN.salt[1:]},
        "no salt": {"salt": b""},
        "short nonce": {"nonce": TOKEN.nonce[1:]},
        "short ciphertext": {"ciphertext": TOKEN.ciphertext[1:]},
        "short public key": {"public_key": TOKEN.public_key[1:]},
        "public key out of range": {"public_key": b"\xff" * 1216},
        "no quorum": {"quorum": 0},
        "quorum beyond the shares": {"quorum": 4},
    }
    tokens = {name: copy(TOKEN, **fields) for name, fields in cases.items()}
    for name, fields in {
        "unknown suite": {"suite": 0},
        "another suite": {"suite": 2},
        "index 0": {"index": 0},
        "index twice": {"index": 2},
        "agent twice": {"agent": AGENTS[1].name},
        "short commitment": {"commitment": b""},
        "short sealed share": {"ciphertext": b""},
        "short share key": {"share_public_key": b""},
    }.items():
        tokens[name] = copy(TOKEN)
        for field, value in fields.items():
            setattr(tokens[name].shares[0], field, value)
    tokens["a share taken out"] = copy(TOKEN)
    del tokens["a share taken out"].shares[0]
    tokens["no shares"] = copy(TOKEN)
    del tokens["no shares"].shares[:]
    return tokens


@pytest.mark.parametrize("case", list(damaged_tokens()))
def test_damaged_tokens_do_not_load(case):
    with pytest.raises(TokenError):
        load_token(damaged_tokens()[case].SerializeToString())


@pytest.mark.parametrize("data", [b"", b"\xff", b"junk" * 100])
def test_other_files_are_no_tokens(data):
    with pytest.raises(TokenError):
        load_token(data)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_file_with_any_flipped_byte_fails_in_a_typed_way_or_opens_the_same_key(data):
    encoded = bytearray(TOKEN.SerializeToString())
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    try:
        token = load_token(bytes(encoded))
        shares = [open_share(token, agent.share_key, agent.name) for agent in AGENTS]
        private_key = open_software_token(token, shares)
    except KeyarkError:
        return
    assert private_key.public_key.to_bytes() == PUBLIC_KEY.to_bytes()


def test_a_storage_key_of_another_token_does_not_open_an_archived_key():
    token, _, shares = create(3, 2)
    sealed = PUBLIC_KEY.seal(b"archived key", b"leaf")
    with pytest.raises(SealError):
        open_software_token(token, shares).open(sealed, b"leaf")
