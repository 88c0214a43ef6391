"""What tests of the CM share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stories.issuance import Ca


@pytest.fixture
async def ca(tmp_path: Path) -> Ca:
    made = Ca(tmp_path)
    await made.log.open(made.store)
    return made
