"""Guards the formats: what an earlier release sealed opens with this one, in every suite."""

import json
from itertools import combinations
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key

from keyark.custody.agents import AgentShareKey, ShareKey
from keyark.custody.envelopes import EnvelopeError, TransportKey
from keyark.custody.matching import match_proof_name, prove_match
from keyark.custody.shares import Share
from keyark.custody.storage import SealError, StoragePrivateKey, StoragePublicKey
from keyark.custody.token import load_token, open_share, open_software_token, recover_pin
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, TRANSPORT_KEY_TYPES, parse_key_type
from keyark.records.v1.drm_pb2 import SealedKey
from tests.support.keys.pki import NOW

PATH = Path(__file__).parent.parent / "vectors" / "crypto" / "vectors.json"
FROZEN = json.loads(PATH.read_text())


def octets(vector, name):
    return bytes.fromhex(vector[name])


def test_every_suite_and_key_type_has_a_vector():
    assert [v["transport_key_type"] for v in FROZEN["envelopes"]] == [t.value for t in TRANSPORT_KEY_TYPES]
    assert [v["key_type"] for v in FROZEN["matches"]] == [t.value for t in ENCRYPTION_KEY_TYPES]


@pytest.mark.parametrize("vector", FROZEN["envelopes"], ids=lambda v: v["transport_key_type"])
def test_envelopes_open(vector):
    transport_key = TransportKey(load_der_private_key(octets(vector, "transport_private_key"), None))
    assert transport_key.key_id == octets(vector, "transport_key_id")
    envelope, statement = octets(vector, "envelope"), octets(vector, "statement_sha256")
    assert transport_key.open(envelope, statement) == octets(vector, "private_key")
    with pytest.raises(EnvelopeError):
        transport_key.open(envelope, bytes(32))


def test_sealed_keys_open():
    vector = FROZEN["storage"]
    private_key = StoragePrivateKey.from_bytes(octets(vector, "storage_private_key"))
    public_key = StoragePublicKey.from_bytes(octets(vector, "storage_public_key"))
    assert private_key.public_key.to_bytes() == public_key.to_bytes()
    assert public_key.key_id == octets(vector, "storage_key_id")
    sealed, leaf = SealedKey.FromString(octets(vector, "sealed_key")), octets(vector, "leaf")
    assert private_key.open(sealed, leaf) == octets(vector, "private_key")
    with pytest.raises(SealError):
        private_key.open(sealed, leaf + b"\0")


@pytest.mark.parametrize("vector", FROZEN["tokens"], ids=lambda v: f"{v['quorum']} of {len(v['agents'])}")
def test_tokens_open(vector):
    token, shares = load_token(octets(vector, "token")), []
    assert (token.generation, token.pin_epoch) == (2, 3)
    for agent in vector["agents"]:
        share_key = ShareKey.from_pem(agent["share_key_pem"].encode(), password=None)
        share = open_share(token, share_key, agent["public_file"]["agent"])
        assert share == Share(agent["share"]["index"], octets(agent["share"], "value"))
        shares.append(share)
    for quorum in combinations(shares, vector["quorum"]):
        assert recover_pin(token, quorum) == octets(vector, "pin")
        assert open_software_token(token, quorum).to_bytes() == octets(vector, "storage_private_key")


@pytest.mark.parametrize("vector", FROZEN["tokens"], ids=lambda v: f"{v['quorum']} of {len(v['agents'])}")
def test_public_files_verify(vector):
    trust_anchor = x509.load_der_x509_certificate(octets(FROZEN, "trust_anchor"))
    for agent in vector["agents"]:
        public = AgentShareKey.from_json(json.dumps(agent["public_file"]))
        share_key = ShareKey.from_pem(agent["share_key_pem"].encode(), password=None)
        assert public.verify(trust_anchor, at=NOW).to_bytes() == share_key.public_key.to_bytes()


@pytest.mark.parametrize("vector", FROZEN["matches"], ids=lambda v: v["key_type"])
def test_matches_are_proven(vector):
    proven = prove_match(octets(vector, "private_key"), octets(vector, "encryption_spki"))
    assert proven == octets(vector, "re_encoded")
    assert match_proof_name(parse_key_type(vector["key_type"])) == vector["proof"]
