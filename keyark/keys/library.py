"""What `cryptography` raises over bytes that are malformed, and what it warns of; its errors have no common base.

It parses names, keys, extensions and times only when they are asked for. So each loader asks once for all that is used
later, and turns these errors into a typed one.
"""

from __future__ import annotations

import warnings
from typing import Final

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm

PARSING_ERRORS: Final = (
    ValueError,  # UnicodeError too
    TypeError,
    OverflowError,
    IndexError,
    NotImplementedError,
    UnsupportedAlgorithm,
    InternalError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.AttributeNotFound,
    x509.UnsupportedGeneralNameType,
)


def ignore_library_warnings() -> None:
    """Keep two warnings of the library out of the logs of keyark's own programs; call it as one begins.

    It is for the whole process, since a context of its own for each certificate would be neither cheap nor safe among
    threads. A program that embeds the SDK decides for itself.
    """
    # The library counts bytes where X.520 counts characters, and warns of long non-ASCII names.
    warnings.filterwarnings("ignore", "Attribute's length must be", UserWarning)
    # It warns of serial numbers that are refused here: a caller could fill the log with that.
    warnings.filterwarnings("ignore", "Parsed a serial number which wasn't positive", UserWarning)
