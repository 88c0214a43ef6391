"""Typed errors of worker processes: packed where they are raised, rebuilt where the batch is."""

from __future__ import annotations

from keyark.errors import KeyarkError, error_class
from keyark.records.v1.drm_pb2 import WorkFailure


def pack_failure(error: KeyarkError) -> WorkFailure:
    """Return the reason and the message of an error; both are public by the rule of keyark.errors."""
    return WorkFailure(reason=error.reason, message=error.message, metadata=error.metadata)


def unpack_failure(failure: WorkFailure) -> KeyarkError:
    """Return the error that a worker packed; an unknown reason becomes an internal error."""
    return (error_class(failure.reason) or KeyarkError)(failure.message, metadata=dict(failure.metadata))
