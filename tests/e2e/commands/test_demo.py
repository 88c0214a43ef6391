"""What `make demo` prints is what lies in the artefacts."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keyark.client.trust.receipts import verify_receipt_file
from keyark.statements.enrollment import parse_statement
from keyark.x509.serials import serial_text


def test_every_fact_of_the_demo_is_that_of_its_artefacts(tmp_path: Path) -> None:
    facts_file = tmp_path / "facts.json"
    command = [
        sys.executable,
        "-m",
        "keyark.cli.demo.commands",
        "--keep",
        str(tmp_path / "kept"),
        "--facts",
        str(facts_file),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(facts_file.read_text())
    alice, home = tmp_path / "kept" / "alice", tmp_path / "kept" / "deployment"

    for value in facts.values():
        assert str(value) in done.stdout
    transport = x509.load_pem_x509_certificate((home / "transport.pem").read_bytes())
    statement = parse_statement((alice / "statement.bin").read_bytes())
    signing, encryption = (
        x509.load_pem_x509_certificate((alice / f"{role}.pem").read_bytes())
        for role in ("signing", "encryption")
    )
    receipt = verify_receipt_file(alice / "receipt.tlog-proof", home / "transport.pem")
    leaf = hashlib.sha256(b"\x00" + receipt.leaf).hexdigest()
    assert (
        facts["transport_certificate_sha256"]
        == hashlib.sha256(transport.public_bytes(Encoding.DER)).hexdigest()
    )
    assert facts["request_id"] == statement.request_id.hex()
    assert facts["statement_sha256"] == receipt.event.statement_sha256.hex() == statement.sha256.hex()
    assert facts["state"] == "AWAITING_PRIVATE_KEY"
    assert facts["match_proof"] == receipt.details.match_proof
    assert facts["key_id"] == hashlib.sha256(statement.encryption_spki).hexdigest()
    assert facts["storage_key_id"] == receipt.event.storage_key_id.hex()
    assert facts["log_index"] == receipt.index
    assert facts["checkpoint"] == f"example.org/drm {receipt.checkpoint.size} {receipt.checkpoint.root.hex()}"
    assert leaf in facts["receipt_verified_by_rm"]
    assert leaf in facts["receipt_verified_by_cm"]
    assert int(facts["signing_serial"], 16) == signing.serial_number
    assert int(facts["encryption_serial"], 16) == encryption.serial_number
    assert serial_text(encryption.serial_number) in facts["certified"]
    assert (alice / "message.cms").stat().st_size > 0
    assert "rm stopped with code 0" in done.stdout
