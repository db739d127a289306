"""Options of a fence device against what its agent says of them, with the agents that are there."""

import subprocess
from functools import cache
from pathlib import Path

import pytest

from domain.errors import Invalid, NoAnswer
from drivers.fence_metadata import AgentParameters, check_complete, parse_metadata

pytestmark = pytest.mark.unit

AGENTS = sorted(path.name for path in Path("/usr/sbin").glob("fence_*"))


@cache
def told(agent: str) -> AgentParameters:
    command = [f"/usr/sbin/{agent}", "-o", "metadata"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return parse_metadata(agent, found.stdout)


def refused(agent: str, **options: str) -> tuple[str, str]:
    with pytest.raises(Invalid) as found:
        check_complete(told(agent), options)
    assert not any(value in str(found.value) for value in options.values() if len(value) > 3)
    return found.value.code, str(found.value.context["option"])


@pytest.mark.parametrize("agent", [a for a in ("fence_apc", "fence_virsh") if a in AGENTS])
def test_an_option_that_an_agent_cannot_do_without_is_asked_for_by_its_newer_name(
    agent: str,
) -> None:
    known = {"ip": "127.0.0.1", "username": "ann"}
    assert refused(agent, **known) == ("FENCE_OPTION_MISSING", "plug")
    check_complete(told(agent), known | {"plug": "3"})
    check_complete(told(agent), {"ipaddr": "127.0.0.1", "login": "ann", "port": "3"})


@pytest.mark.skipif("fence_ipmilan" not in AGENTS, reason="fence-agents is not installed")
@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("lanplus", "1", True),
        ("lanplus", "Yes", True),
        ("lanplus", "maybe", False),
        ("ipport", "623", True),
        ("ipport", "abcd", False),
        ("power_timeout", "20", True),
        ("power_timeout", "20 s", False),
        ("privlvl", "operator", True),
        ("privlvl", "emperor", False),
        ("power-timeout", "soon", False),
    ],
)
def test_a_value_has_to_be_of_the_type_that_the_agent_names(
    name: str, value: str, fits: bool
) -> None:
    options = {"ip": "127.0.0.1", name: value}
    if fits:
        check_complete(told("fence_ipmilan"), options)
    else:
        code, option = refused("fence_ipmilan", **options)
        assert (code, option) == ("FENCE_OPTION_MALFORMED", name.replace("-", "_"))


METADATA = """<resource-agent name="fence_x"><parameters>
<parameter name="ip" required="1"><content type="string"/></parameter>
<parameter name="vmtype" required="1"><content type="string" default="qemu"/></parameter>
<parameter name="auth"><content type="select">
<option value="MD5"/><option value="sha"/></content></parameter>
</parameters><actions/></resource-agent>"""


@pytest.mark.parametrize("auth", ["md5", "MD5", "SHA"])
def test_what_has_a_default_need_not_be_given_and_choices_are_taken_in_any_case(auth: str) -> None:
    check_complete(parse_metadata("fence_x", METADATA), {"ip": "127.0.0.1", "auth": auth})


@pytest.mark.skipif(not AGENTS, reason="fence-agents is not installed")
@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_that_is_there_takes_what_it_asks_for(agent: str) -> None:
    try:
        parameters = told(agent)
    except NoAnswer:
        pytest.skip(f"{agent} prints no metadata here")
    options = {name: "1" for name in parameters.required if name not in parameters.types}
    check_complete(parameters, options)
