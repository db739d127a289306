"""Fence agents that lie, hang, print garbage or print secrets, as scripts in a folder."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from domain.errors import Invalid, NoAnswer, Refused
from domain.inventory import FenceDevice, PowerReading
from drivers.fence_agents import FenceAgents

pytestmark = pytest.mark.unit

SECRET = "hunter two/ü"
PARAMETERS = ("action", "method", "ip", "plug", "password", "power_wait", "password_script")
AGENT = """#!/bin/sh
if [ "$1" = -o ]; then cat {folder}/metadata.xml; exit 0; fi
cat > {folder}/stdin
tr '\\0' ' ' < /proc/$$/cmdline > {folder}/argv
env > {folder}/env
action=$(sed -n s/^action=//p {folder}/stdin)
{body}
"""
METADATA = (
    "<resource-agent><parameters>"
    + "".join(f'<parameter name="{name}"/>' for name in PARAMETERS)
    + '</parameters><actions><action name="off"/></actions></resource-agent>'
)

MakeAgent = Callable[[str], Path]


@pytest.fixture
def make_agent(tmp_path: Path) -> MakeAgent:
    """Write `fence_fake`, whose shell body sees $action; the folder is its search path."""

    def make(body: str) -> Path:
        (tmp_path / "metadata.xml").write_text(METADATA)
        path = tmp_path / "fence_fake"
        path.write_text(AGENT.format(folder=tmp_path, body=body))
        path.chmod(0o755)
        return tmp_path

    return make


def agents(folder: Path, secret: str = SECRET) -> FenceAgents:
    async def secrets(_device: UUID) -> Mapping[str, SecretStr]:
        return {"password": SecretStr(secret)}

    return FenceAgents(secrets, search_path=(str(folder),))


def device(
    options: Mapping[str, str] | None = None,
    *,
    deadline_s: float = 20.0,
    agent: str = "fence_fake",
) -> FenceDevice:
    return FenceDevice(
        id=uuid4(),
        host_id=uuid4(),
        name="bmc1",
        agent=agent,
        options={"ip": "127.0.0.1", **(options or {})},
        deadline_s=deadline_s,
    )


@pytest.mark.parametrize(
    ("body", "reading"),
    [
        ("echo Status: ON; exit 0", PowerReading.ON),
        ("echo Status: OFF; exit 2", PowerReading.OFF),
        ("echo Status: OFF; exit 0", PowerReading.UNKNOWN),
        ("echo Status: ON; exit 2", PowerReading.UNKNOWN),
        ("echo Status: OFF; exit 1", PowerReading.UNKNOWN),
        ("exit 2", PowerReading.UNKNOWN),
        ("echo bad arguments, not Status: OFF; exit 2", PowerReading.UNKNOWN),
        ("echo Status: OFF; echo Status: ON; exit 2", PowerReading.UNKNOWN),
        ("echo Status: OFF >&2; exit 2", PowerReading.UNKNOWN),
        ("head -c 300000 /dev/urandom; exit 2", PowerReading.UNKNOWN),
        ("kill -9 $$", PowerReading.UNKNOWN),
    ],
)
async def test_a_power_state_needs_exit_code_and_words_to_agree(
    body: str, reading: PowerReading, make_agent: MakeAgent
) -> None:
    assert await agents(make_agent(body)).read(device()) is reading


async def test_a_hanging_agent_reads_unknown_and_its_off_is_no_answer(
    make_agent: MakeAgent,
) -> None:
    hanging = agents(make_agent("sleep 600"))
    await hanging.check(device())
    assert await hanging.read(device(deadline_s=0.3)) is PowerReading.UNKNOWN
    with pytest.raises(NoAnswer, match="FENCE_AGENT_SILENT"):
        await hanging.off(device(deadline_s=0.3))


async def test_a_claim_is_made_when_all_is_ready_and_before_the_agent_is_run(
    make_agent: MakeAgent,
) -> None:
    folder = make_agent("exit 0")
    run_before_the_claim: list[bool] = []

    async def claim() -> None:
        run_before_the_claim.append((folder / "argv").exists())

    await agents(folder).off(device(), claim)
    assert (run_before_the_claim, (folder / "argv").exists()) == ([False], True)


async def test_an_agent_whose_claim_is_refused_is_not_run_and_nothing_of_it_is_left(
    make_agent: MakeAgent,
) -> None:
    folder = make_agent("exit 0")

    async def claim() -> None:
        raise Refused("FENCE_NOT_ALLOWED", "it was heard again")

    with pytest.raises(Refused, match="it was heard again"):
        await agents(folder).off(device(), claim)
    assert not (folder / "argv").exists()
    assert processes_of(folder) == []


def processes_of(folder: Path) -> list[str]:
    """Command lines that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode())
    return [line for line in found if f"{folder}/" in line]


async def test_a_slow_claim_takes_nothing_from_the_time_of_the_agent(
    make_agent: MakeAgent,
) -> None:
    folder = make_agent("exit 0")

    async def claim() -> None:
        await asyncio.sleep(3)

    await agents(folder).off(device(deadline_s=2.5), claim)
    assert (folder / "argv").exists()


async def test_options_travel_on_stdin_alone_and_never_ask_for_a_cycle(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_DATABASE", SECRET)
    folder = make_agent("exit 0")
    await agents(folder).off(device({"plug": "rack 1"}))
    assert (folder / "stdin").read_text().splitlines() == [
        "action=off",
        "method=onoff",
        "power_wait=0",
        "ip=127.0.0.1",
        "plug=rack 1",
        f"password={SECRET}",
    ]
    assert SECRET not in (folder / "argv").read_text()
    assert SECRET not in (folder / "env").read_text()


async def test_a_value_with_spaces_or_quotes_at_its_ends_is_quoted_once(
    make_agent: MakeAgent,
) -> None:
    folder = make_agent("exit 0")
    for secret in (" padded ", '"quoted"'):
        await agents(folder, secret).on(device())
        assert f'password="{secret}"\n' in (folder / "stdin").read_text()


async def test_a_secret_that_an_agent_prints_reaches_no_error_and_no_log(
    make_agent: MakeAgent,
) -> None:
    noisy = agents(make_agent('cat "$(dirname "$0")/stdin" >&2; exit 1'))
    with capture_logs() as logs, pytest.raises(NoAnswer) as failed:
        await noisy.off(device())
    assert failed.value.code == "FENCE_AGENT_FAILED"
    assert "password=***" in failed.value.detail
    assert SECRET not in f"{failed.value} {failed.value.context} {logs}"
    assert [(log["device"], log["action"], log["verdict"]) for log in logs] == [
        ("bmc1", "off", False)
    ]


async def test_a_missing_agent_reads_unknown_and_is_named_where_it_can_be_put_right(
    make_agent: MakeAgent,
) -> None:
    fence = agents(make_agent("exit 0"))
    missing = device(agent="fence_fakes")
    assert await fence.read(missing) is PowerReading.UNKNOWN
    for call in (fence.off(missing), fence.check(missing)):
        with pytest.raises(Invalid) as refused:
            await call
        assert refused.value.code == "FENCE_AGENT_UNKNOWN"
        assert "fence_fake?" in refused.value.next_step


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"pluck": "1"}, "FENCE_OPTION_UNKNOWN"),
        ({"password": "x"}, "FENCE_SECRET_IN_OPTIONS"),
        ({"password_script": "/bin/evil"}, "FENCE_OPTION_FORBIDDEN"),
        ({"action": "reboot"}, "FENCE_OPTION_FORBIDDEN"),
        ({"method": "cycle"}, "FENCE_OPTION_FORBIDDEN"),
        ({"plug": "1\naction=reboot"}, "FENCE_OPTION_MALFORMED"),
        ({"ip": "h1 -f /etc/shadow"}, "FENCE_OPTION_MALFORMED"),
    ],
)
async def test_an_option_that_a_device_may_not_have_never_reaches_the_agent(
    options: dict[str, str], code: str, make_agent: MakeAgent
) -> None:
    folder = make_agent("exit 0")
    with pytest.raises(Invalid) as refused:
        await agents(folder).off(device(options))
    assert refused.value.code == code
    assert not (folder / "stdin").exists()


async def test_an_unknown_option_comes_with_the_nearest_known_one(make_agent: MakeAgent) -> None:
    with pytest.raises(Invalid) as refused:
        await agents(make_agent("exit 0")).check(device({"pluk": "1"}))
    assert "plug" in refused.value.next_step


async def test_secrets_that_do_not_come_in_time_read_unknown(make_agent: MakeAgent) -> None:
    async def never(_device: UUID) -> Mapping[str, SecretStr]:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    fence = FenceAgents(never, search_path=(str(make_agent("exit 0")),))
    assert await fence.read(device(deadline_s=0.3)) is PowerReading.UNKNOWN


async def test_metadata_that_is_no_xml_is_no_answer(make_agent: MakeAgent) -> None:
    folder = make_agent("exit 0")
    (folder / "metadata.xml").write_text("Traceback")
    with pytest.raises(NoAnswer, match="FENCE_METADATA_UNREADABLE"):
        await agents(folder).agent_parameters("fence_fake")
