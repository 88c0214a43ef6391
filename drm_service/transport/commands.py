"""`keyark-drm transport-key new|retire|list`: what an operator asks of the running DRM about its keys."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from drm_service.config import DrmConfig
from drm_service.transport.keys import TransportKeys
from drm_service.transport.loss import replace_lost_key
from keyark.config import load_config
from keyark.errors import InvalidInputError
from keyark.keys.key_types import TRANSPORT_KEY_TYPES, KeyType, parse_key_type
from keyark.service.control import UnknownCommandError, ask
from keyark.service.program.output import answer

COMMAND = "transport-key"
_KEY_TYPES: Final = " or ".join(t.value for t in TRANSPORT_KEY_TYPES)


async def transport_key_command(keys: TransportKeys, arguments: Sequence[str]) -> Any:
    """Carry out `new TYPE`, `retire NUMBER` or `list`; raises UnknownCommandError for anything else."""
    match list(arguments):
        case ["new", key_type]:
            return await keys.make(parse_key_type(key_type, permitted=TRANSPORT_KEY_TYPES, field="key_type"))
        case ["retire", generation]:
            return await keys.retire(_number(generation))
        case ["list"]:
            return keys.describe()
    raise UnknownCommandError("The command is `new TYPE`, `retire NUMBER` or `list`.")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidInputError("A transport key is named by its number; see the list.", field="generation")
    return int(text)


def add_commands(commands: Any) -> None:
    """Add `transport-key` to the DRM's program; each prints JSON."""
    parser = commands.add_parser(COMMAND, help="make, retire and list transport keys")
    actions = parser.add_subparsers(required=True)
    new = _action(
        actions, "new", "make the next key pair and its certificate request; `reload` puts the key in force"
    )
    new.add_argument("--key-type", default=KeyType.EC_P256.value, help=_KEY_TYPES)
    new.set_defaults(command=lambda parsed: _ask(parsed, "new", parsed.key_type))
    retire = _action(actions, "retire", "refuse envelopes to a key from now on, and delete its private key")
    retire.add_argument("generation", help="the key's number")
    retire.set_defaults(command=lambda parsed: _ask(parsed, "retire", parsed.generation))
    lost = _action(
        actions,
        "replace-lost",
        "while the DRM is stopped: make a new key after the newest private key was lost",
    )
    lost.add_argument("--key-type", default=KeyType.EC_P256.value, help=_KEY_TYPES)
    lost.set_defaults(command=_replace_lost)
    listing = _action(actions, "list", "list all keys, newest first")
    listing.set_defaults(command=lambda parsed: _ask(parsed, "list"))


def _action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text)
    parser.add_argument("config", type=Path, help="drm.toml")
    return parser


def _replace_lost(parsed: argparse.Namespace) -> None:
    key_type = parse_key_type(parsed.key_type, permitted=TRANSPORT_KEY_TYPES, field="--key-type")
    answer(parsed, replace_lost_key(load_config(parsed.config, DrmConfig), key_type))


def _ask(parsed: argparse.Namespace, *words: str) -> None:
    config = load_config(parsed.config, DrmConfig)
    answer(parsed, ask(config.store.path, COMMAND, *words))
