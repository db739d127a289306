"""What an agent gives to a ping, told from what libvirt and QEMU say of its channel."""

from typing import cast
from uuid import uuid4

import libvirt
import libvirt_qemu
import pytest

from domain.readings import AgentState
from drivers import libvirt_agent

pytestmark = pytest.mark.unit


def asked(monkeypatch: pytest.MonkeyPatch, channel: str, code: int) -> AgentState:
    """What is made of a ping that libvirt refuses with a code."""

    class Guest:
        def XMLDesc(self, _flags: int) -> str:  # noqa: N802 - as libvirt spells it
            return f"""<domain><devices>
              <channel type='unix'><target type='virtio' name='other' state='connected'/></channel>
              <channel type='unix'>
                <target type='virtio' name='org.qemu.guest_agent.0' {channel}/>
              </channel>
            </devices></domain>"""

    def refused(*_: object) -> str:
        error = libvirt.libvirtError("no answer")
        error.err = (code, 0, "no answer", 0, "", "", "", 0, 0)
        raise error

    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", refused)
    monkeypatch.setattr(libvirt_agent, "find", lambda *_: Guest())
    return libvirt_agent.ask_agent(cast("libvirt.virConnect", None), uuid4())


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        ("state='connected'", AgentState.SILENT),
        ("state='disconnected'", AgentState.ABSENT),
        ("", AgentState.ABSENT),
    ],
)
def test_an_agent_is_silent_only_where_somebody_in_the_guest_has_its_channel_open(
    monkeypatch: pytest.MonkeyPatch, channel: str, said: AgentState
) -> None:
    assert asked(monkeypatch, channel, libvirt.VIR_ERR_AGENT_UNRESPONSIVE) is said


def test_an_agent_that_answers_an_earlier_question_is_late_and_not_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = asked(monkeypatch, "state='connected'", libvirt.VIR_ERR_AGENT_UNSYNCED)
    assert said is AgentState.UNSYNCED
