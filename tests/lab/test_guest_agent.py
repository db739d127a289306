"""Real guests with QEMU's real guest agent: when a VM is ready, and when its guest hangs.

What happens inside a guest is done by its agent, which is asked to run a script there.
"""

import json
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET

import libvirt_qemu
import pytest

from lab.guest_agent import PORT, PROGRAM
from tests.lab.center import Center, Vm, domain_of, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]

Figure = Callable[[str], None]

HANG_AFTER_S = 15
"""The shortest that a VM may have."""

SILENT_S = 45
"""How long an agent is stopped that goes on by itself: long enough to be told as hung."""

NEVER_S = 3.0
"""How long dependants wait for an agent that never comes."""

TICKS_A_SECOND = 100
ANSWER_S = 10


def asked(center: Center, vm: Vm, host: str, command: str, **arguments: Any) -> Any:
    """One call to the agent of a guest."""
    call = json.dumps({"execute": command, "arguments": arguments})
    with domain_of(center, vm, host) as domain:
        return json.loads(libvirt_qemu.qemuAgentCommand(domain, call, ANSWER_S, 0))["return"]


SLEPT = timedelta(seconds=0.9)
"""For so long at least a script in a guest waits before it begins; its clock is not quite ours."""


def inside(center: Center, vm: Vm, host: str, script: str) -> int:
    """Begin a shell script in a guest, a second from now; its process there."""
    call = {"path": "/bin/sh", "arg": ["-c", f"sleep 1; {script}"], "capture-output": True}
    pid: int = asked(center, vm, host, "guest-exec", **call)["pid"]
    return pid


def output_inside(center: Center, vm: Vm, host: str, script: str) -> str:
    """What a shell script in a guest says."""
    pid, found = inside(center, vm, host, script), {}

    def ended() -> bool:
        nonlocal found
        found = asked(center, vm, host, "guest-exec-status", pid=pid)
        return bool(found["exited"])

    until(ended, f"a script ends in {vm.name}")
    assert found["exitcode"] == 0, found
    return b64decode(found["out-data"]).decode()


def agent_began(center: Center, vm: Vm, host: str) -> tuple[datetime, datetime]:
    """Between which moments the agent's process began, by the guest's kernel and our clock."""
    asked_at = datetime.now(UTC)
    said = output_inside(center, vm, host, f"cat /proc/uptime /proc/$(pidof {PROGRAM})/stat")
    now = datetime.now(UTC)
    uptime, stat = said.splitlines()
    # The name, in brackets, is the second of the fields, and when it began is the 22nd.
    ticks = int(stat.rpartition(")")[2].split()[22 - 3])
    age = timedelta(seconds=float(uptime.split()[0]) - ticks / TICKS_A_SECOND)
    return asked_at + SLEPT - age, now - age


def channel(center: Center, vm: Vm, host: str) -> str | None:
    """Whether somebody in the guest has the agent's channel open, as QEMU has it."""
    with domain_of(center, vm, host) as domain:
        document = ET.fromstring(domain.XMLDesc(0))
    targets = document.findall("./devices/channel/target")
    (found,) = [target.get("state") for target in targets if target.get("name") == PORT]
    return found


def listened_to(center: Center, word: str, host: str, **more: Any) -> Vm:
    """A VM that runs, and whose agent the engine has heard; a panic does not boot it again."""
    boot = center.lab.inventory().guest
    boot = boot.model_copy(update={"cmdline": boot.cmdline.replace("panic=1", "panic=0")})
    asked_for = {"hang_after_s": HANG_AFTER_S, "boot": boot.model_dump(mode="json")}
    vm = center.running_vm(word, host, **asked_for | more)
    heard(center, vm)
    return vm


def heard(center: Center, vm: Vm) -> None:
    """Wait until the engine has heard the agent in the VM's present run."""
    until(lambda: center.vm(vm)["agent_heard"], f"the agent of {vm.name} is heard")


def told(center: Center, kind: str, *vms: Vm) -> list[str]:
    """Names of the VMs that events of a type are about, one an event."""
    names = {vm.id: vm.name for vm in vms}
    found = center.get("/audit", type=kind)["items"]
    return sorted(names[event["subject_id"]] for event in found if event["subject_id"] in names)


def recoveries(center: Center, vm: Vm) -> list[Any]:
    """Operations that saw to a guest of the VM."""
    found = center.get("/operations", kind="vm.recover")["items"]
    return [item for item in found if item["target_id"] == vm.id]


def since_s(earlier: Any, later: Any) -> float:
    """Seconds between two moments, each as a time or as the API writes it."""
    begin, end = (
        each if isinstance(each, datetime) else datetime.fromisoformat(each)
        for each in (earlier, later)
    )
    return (end - begin).total_seconds()


def wait_for(center: Center, incident: Any, vm: Vm) -> Any:
    """The look of a recovery at which a VM was waited for no longer, and what it said of it."""
    steps = center.get(f"/operations/{incident['operation_id']}")["steps"]
    looks = [step for step in steps if step["name"] == "recovery.look_ready"]
    told = [
        (look, said)
        for look in looks
        for said in look["detail"].split("; ")
        if said.startswith(f"{vm.name} is ") and not said.endswith(" not ready yet")
    ]
    ((look, said),) = told
    found = {**look, "detail": said}
    assert found["state"] == "succeeded"
    return found


def test_after_a_power_cut_dependants_start_once_the_agent_answers_or_the_limit_is_over(
    center: Center, figure: Figure
) -> None:
    mute_boot = center.lab.inventory().guest.model_dump(mode="json")
    mute_boot["cmdline"] += " AGENT=off"
    rule, short = {"when": "agent"}, {"when": "agent", "limit_s": NEVER_S}
    db = center.running_vm("db", "h1", ready=rule)
    web = center.running_vm("web", "h1", depends_on=[db.id])
    mute = center.running_vm("mute", "h1", ready=short, boot=mute_boot)
    late = center.running_vm("late", "h1", depends_on=[mute.id])
    with center.lab.sampler() as sampler:
        incident = center.recover_from("h1", center.lab.crash)
        center.assert_one_copy_each(sampler.result(), db, web, mute, late)
    ran = {vm.name: center.vm(vm)["running_since"] for vm in (db, web, mute, late)}
    ready, given_up = wait_for(center, incident, db), wait_for(center, incident, mute)
    earliest, began_at = agent_began(center, db, center.vm(db)["host_name"])
    assert ready["detail"] == f"{db.name} is ready: its guest agent answers"
    assert since_s(ran[db.name], began_at) > 0
    assert since_s(earliest, ready["finished_at"]) > 0
    assert since_s(ready["finished_at"], ran[web.name]) > 0
    assert given_up["detail"].startswith(f"{mute.name} is not ready: waited {NEVER_S:g} s in vain")
    assert since_s(ran[mute.name], given_up["finished_at"]) >= NEVER_S
    assert since_s(given_up["finished_at"], ran[late.name]) > 0
    assert told(center, "vm.not_ready", db, mute) == [mute.name]
    for what, at in (
        ("its agent began", began_at),
        ("it was ready", ready["finished_at"]),
        ("its dependant ran", ran[web.name]),
    ):
        figure(f"{what} {since_s(ran[db.name], at):.2f} s after the VM")


def test_a_guest_that_hangs_is_ended_and_started_again_once(center: Center, figure: Figure) -> None:
    vm = listened_to(center, "hangs", "h1", on_hang="restart")
    before = center.vm(vm)["generation"]
    with center.lab.sampler() as sampler:
        # The kernel stops for good, with interrupts off; QEMU and its processors go on.
        inside(center, vm, "h1", "echo c >/proc/sysrq-trigger")
        asked_at = datetime.now(UTC)
        until(lambda: center.vm(vm)["generation"] > before, f"{vm.name} is started again")
        heard(center, vm)
        center.assert_one_copy_each(sampler.result(), vm)
    found = center.vm(vm)
    assert (found["generation"], found["host_name"]) == (before + 1, "h1")
    ended = [e for e in center.get("/audit", type="vm.ended")["items"] if e["subject_id"] == vm.id]
    assert [event["data"]["reason"] for event in ended] == ["guest hung"]
    assert [operation["state"] for operation in recoveries(center, vm)] == ["succeeded"]
    assert told(center, "vm.hung", vm) == [vm.name]
    figure(
        f"a guest that panicked ran again after {since_s(asked_at, found['running_since']):.1f} s"
    )


def test_a_hang_is_only_told_where_asked_and_an_agent_that_was_stopped_is_none(
    center: Center, figure: Figure
) -> None:
    closed = listened_to(center, "closed", "h1", on_hang="restart")
    silent = listened_to(center, "silent", "h2", on_hang="report")
    before = [center.vm(vm)["generation"] for vm in (closed, silent)]
    inside(center, closed, "h1", f"kill $(pidof {PROGRAM})")
    until(lambda: channel(center, closed, "h1") == "disconnected", "the agent is stopped")
    agent = f"$(pidof {PROGRAM})"
    inside(center, silent, "h2", f"kill -STOP {agent}; sleep {SILENT_S}; kill -CONT {agent}")
    asked_at = datetime.now(UTC)
    until(lambda: center.vm(silent)["agent_silent_since"], "the hang is told")
    figure(f"a hang is told after {since_s(asked_at, datetime.now(UTC)):.1f} s")
    assert channel(center, silent, "h2") == "connected"
    assert told(center, "vm.hung", silent, closed) == [silent.name]
    until(lambda: center.vm(silent)["agent_silent_since"] is None, "its agent answers again")
    assert told(center, "vm.answers_again", silent, closed) == [silent.name]
    assert told(center, "vm.hung", silent, closed) == [silent.name]
    for vm, generation in zip((closed, silent), before, strict=True):
        assert recoveries(center, vm) == []
        assert (center.vm(vm)["generation"], center.vm(vm)["state"]) == (generation, "up")
