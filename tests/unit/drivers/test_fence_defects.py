"""A fence device whose reading breaks in a way that nobody foresaw proves nothing."""

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from domain.errors import Invalid
from domain.inventory import PowerReading
from drivers.fence_agents import FenceAgents
from drivers.fence_metadata import AgentParameters, check_options
from tests.unit.drivers.test_fence_agents import MakeAgent, device, make_agent

pytestmark = pytest.mark.unit
__all__ = ["make_agent"]

KNOWN = AgentParameters(
    agent="fence_fake",
    names=frozenset({"username", "password"}),
    required=frozenset(),
    actions=frozenset(),
)


@pytest.mark.parametrize("half", [0xD800, 0xDFFF])
@pytest.mark.parametrize("name", ["username", "password"])
def test_half_a_character_in_an_option_or_a_secret_is_refused(name: str, half: int) -> None:
    value = {name: f"open{chr(half)}sesame"}
    options, secrets = (value, {}) if name == "username" else ({}, value)
    with pytest.raises(Invalid) as refused:
        check_options(KNOWN, options, secrets)
    assert refused.value.code == "FENCE_OPTION_MALFORMED"
    assert "sesame" not in str(refused.value)


async def test_a_defect_while_reading_is_unknown_and_logged(make_agent: MakeAgent) -> None:
    folder: Path = make_agent("echo Status: OFF; exit 2")

    async def broken(_device: UUID) -> Mapping[str, SecretStr]:
        raise RuntimeError("nobody foresaw this")

    with capture_logs() as logs:
        reading = await FenceAgents(broken, search_path=(str(folder),)).read(device())
    assert reading is PowerReading.UNKNOWN
    assert [(line["log_level"], line["exc_info"]) for line in logs] == [("error", True)]
