"""What may stand in a subject: common names, organisations and e-mail addresses."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from keyark.errors import InvalidInputError
from keyark.text.characters import describe, unseen_positions, without_joiners

MAX_NAME_CHARACTERS: Final = 64  # ub-common-name and ub-organization-name, RFC 5280 appendix A.1
MAX_EMAIL_CHARACTERS: Final = 254  # RFC 5321 §4.5.3.1.3 less the angle brackets
MAX_DOMAIN_CHARACTERS: Final = 253

_ATEXT: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL_PART: Final = re.compile(rf"(?=.{{1,64}}\Z){_ATEXT}(?:\.{_ATEXT})*", re.ASCII)
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN: Final = re.compile(rf"(?:{_LABEL}\.)+(?![0-9]+\Z){_LABEL}", re.ASCII)


def normalized_name(value: str) -> str:
    """Return a name in Unicode normal form C, as statements have it; keyboards and file systems give others too."""
    return unicodedata.normalize("NFC", value)


def folded_name(value: str) -> str:
    """Return a name as names are compared: without regard to case, in Unicode normal form C."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", value).casefold())


def check_name(value: str, *, field: str = "common_name") -> None:
    """Check a common name or an organisation: 1 to 64 characters that people see, in Unicode normal form C.

    Refused is what makes two names look like one: control, format, private and unassigned characters; those that
    Unicode lists as ignorable, or calls blank or a filler; spaces other than U+0020, and spaces at either end; more
    than four marks on a letter. A joiner is taken where RFC 5892 (appendix A.1 and A.2) lets it stand. Raises
    InvalidInputError with the field.
    """
    check_kept_name(value, field=field)
    if position := next(unseen_positions(value), -1) + 1:
        raise InvalidInputError(
            f"Character {position} of the name is {describe(value[position - 1])}, which is invisible; "
            "use letters, digits, punctuation and plain spaces.",
            field=field,
        )


def check_kept_name(value: str, *, field: str = "common_name") -> None:
    """Check a name that was accepted before and is kept: as ``check_name``, less what only it looks for.

    Earlier releases took ignorable and blank characters; what was archived under such a name stays recoverable.
    """
    if not 1 <= len(value) <= MAX_NAME_CHARACTERS:
        raise InvalidInputError(
            f"The name has {len(value)} characters; give 1 to {MAX_NAME_CHARACTERS}.", field=field
        )
    if unseen := next((c for c in without_joiners(value) if not c.isprintable()), ""):
        raise InvalidInputError(
            f"Character {value.index(unseen) + 1} of the name is {describe(unseen)}, a control, format or "
            "separator character; use letters, digits, punctuation and plain spaces.",
            field=field,
        )
    if value[0] == " " or value[-1] == " ":
        raise InvalidInputError("The name starts or ends with a space; remove it.", field=field)
    if not unicodedata.is_normalized("NFC", value):
        raise InvalidInputError("The name is not in Unicode normal form C; normalize it.", field=field)


def check_email(value: str, *, field: str = "email") -> None:
    """Check an e-mail address: ASCII, at most 254 characters, dot-atom local part, DNS domain.

    It is the addr-spec of RFC 5322 §3.4.1 without its rarities: quoted local parts, comments, address
    literals and single-label domains are refused. Raises InvalidInputError with the field.
    """
    local_part, at_sign, domain = value.partition("@")
    if (
        len(value) > MAX_EMAIL_CHARACTERS
        or not at_sign
        or not _LOCAL_PART.fullmatch(local_part)
        or len(domain) > MAX_DOMAIN_CHARACTERS
        or not _DOMAIN.fullmatch(domain)
    ):
        if not domain.isascii() and (written := _as_ascii(domain)):
            raise InvalidInputError(f"Write the domain of the address in ASCII: {written}.", field=field)
        raise InvalidInputError(
            "This is not an e-mail address; give one like name@example.org, of at most "
            f"{MAX_EMAIL_CHARACTERS} ASCII characters.",
            field=field,
        )


def _as_ascii(domain: str) -> str:
    """Return an internationalized domain in ASCII, "" for what is none."""
    try:
        return domain.encode("idna").decode()
    except UnicodeError:
        return ""
