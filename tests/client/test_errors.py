"""The tables of docs/protocol.md, the errors of the services and the classes of the SDK are the same."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import cm_service
import drm_service
import keyark.service
import keyark.store
import keyark.transparency
import keyark.workers
import rm_service
from keyark.client import errors
from keyark.errors import ConfigurationError, KeyarkError, error_class
from keyark.errors.remedies import REMEDIES
from tools.error_tables import PROTOCOL, documented_reasons, with_codes_and_remedies

DOCUMENTED = documented_reasons(PROTOCOL.read_text())
CLASSES = [
    each
    for name in errors.__all__
    if inspect.isclass(each := getattr(errors, name)) and issubclass(each, KeyarkError)
]
FOR_OPERATORS = {  # of commands on the service's own host, and of its start
    "AUTHORITY_ANSWER",
    "CHANGE_NEVER_BELIEVED",
    "EVIDENCE_UNCONFIRMED",
    "IDENTITY_LIST",
    "KEY_EXISTS",
    "OLDER_IDENTITY_LIST",
    "RECORD_MISMATCH",
    "SCHEMA_VERSION",
    "STORE_LOCKED",
    "TRANSPORT_KEY_STATE",
    "UNKNOWN_COMMAND",
    "WORKER_FRAME",
}
FOUND_BY_READERS = {"CONSISTENCY_PROOF_INVALID", "CHECKPOINT_INVALID", "RECEIPT_INVALID"}


def test_docs_protocol_has_the_codes_and_remedies_of_the_classes():
    text = PROTOCOL.read_text()
    assert with_codes_and_remedies(text) == text, "`make docs` brings it up to date"
    assert len(DOCUMENTED) == len(set(DOCUMENTED)) > 110


def test_every_documented_reason_is_a_class_of_the_sdk_with_a_remedy_of_its_own():
    assert set(DOCUMENTED) <= {each.reason for each in CLASSES} & set(REMEDIES)


def test_every_class_of_the_sdk_has_a_remedy_and_every_remedy_a_class():
    assert {each.reason for each in CLASSES} == set(REMEDIES)
    for each in CLASSES:
        assert each.remedy == REMEDIES[each.reason]
        assert each.remedy.endswith(".")


@pytest.mark.parametrize(
    "package",
    [rm_service, cm_service, drm_service, keyark.service, keyark.store, keyark.transparency, keyark.workers],
    ids=lambda package: package.__name__,
)
def test_every_error_of_a_service_is_documented(package):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name.endswith("__main__"):
            continue
        defined = vars(importlib.import_module(module.name)).values()
        for each in defined:
            if inspect.isclass(each) and issubclass(each, KeyarkError) and error_class(each.reason) is each:
                if each.__module__ == "keyark.errors.commands":  # told on the spot, and sent to nobody
                    continue
                known = each.reason in {*DOCUMENTED, *FOR_OPERATORS, *FOUND_BY_READERS, "INTERNAL"}
                assert known or issubclass(each, ConfigurationError), f"{module.name}: {each.reason}"


def test_a_client_without_the_services_gets_each_reason_as_its_class():
    program = f"""
import sys
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
import keyark.client
from keyark.client.errors import RemoteError
from keyark.rpc.errors import error_from_status
for reason in {DOCUMENTED}:
    status = Status(code=9, message="m")
    status.details.add().Pack(ErrorInfo(reason=reason, domain="keyark"))
    error = error_from_status(status)
    assert not isinstance(error, RemoteError) and error.reason == reason, reason
foreign = ("rm_service", "cm_service", "drm_service", "lmdb")
assert not [name for name in sys.modules if name.partition(".")[0] in foreign]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
