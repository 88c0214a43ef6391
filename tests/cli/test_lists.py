"""Lists that a command reads from a disk are given in parts, as those of the services are."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support.running.processes import keyark


def test_identities_are_listed_in_parts_that_together_are_the_whole(deployment_template: Path) -> None:
    words = ("identities", "list", "--home", deployment_template)
    whole = json.loads(keyark(*words, "--json").stdout)
    parts, token = [], ""
    while True:
        part = (
            json.loads(keyark(*words, "--limit", 3, "--page-token", token, "--json").stdout)
            if token
            else (json.loads(keyark(*words, "--limit", 3, "--json").stdout))
        )
        parts += part["entries"]
        token = part.get("next_page_token", "")
        if not token:
            break
        assert len(part["entries"]) == 3
    assert len(whole) > 6
    assert parts == whole


def test_the_token_of_a_list_is_told_to_people_and_fits_that_list_alone(deployment_template: Path) -> None:
    words = ("identities", "list", "--home", deployment_template)
    first = keyark(*words, "--limit", 1)
    (token,) = re.findall(r"--page-token (\S+)", first.stderr)
    rest = keyark(*words, "--page-token", token)
    assert first.stdout + rest.stdout == keyark(*words).stdout
    assert "--page-token" not in rest.stderr
    assert "belongs to another list" in keyark(*words, "--page-token", "00", code=2).stderr
