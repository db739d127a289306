"""A desk for each test: commands, a fake engine, and a clean environment."""

from pathlib import Path

import pytest

from tests.unit.cli.fake_engine import Desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Commands against a fake engine, whatever the developer's own environment says."""
    for name in ("HOLDFAST_URL", "HOLDFAST_TOKEN", "HOLDFAST_TOKEN_FILE", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOLDFAST_VAR", str(tmp_path))
    return Desk(tmp_path)
