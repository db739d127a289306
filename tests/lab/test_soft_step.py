"""A libvirtd that hangs is restarted by the engine itself, over SSH, and its guests notice nothing.

The cluster has the profile `fast`; the engine may reach h1 and h2 over SSH.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import processes, sshd
from lab.hosts import Host
from lab.lab import Lab
from lab.processes import ProcessId
from lab.sampler import guest_name
from lab.state import host_named
from tests.lab.center import Center, running_center, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]

Figure = Callable[[str], None]


@pytest.fixture(scope="module")
def running(fresh_lab: Lab, engine_var: Path) -> Iterator[Center]:
    with running_center(fresh_lab, engine_var, "fast") as found:
        for host in ("h1", "h2"):
            give_access(found, host)
        yield found


def give_access(center: Center, host: str, **other: Any) -> None:
    """As `holdfast host edit --ssh-user …` does it."""
    entry = next(each.ssh for each in center.lab.inventory().hosts if each.name == host)
    body = {"user": entry.user, "port": entry.port, "host_key": entry.host_key}
    body |= {"private_key": Path(entry.key_file).read_text()} | other
    answer = center.client.patch(f"/api/v1/hosts/{center.hosts[host]}", json={"ssh": body})
    assert answer.status_code in (200, 202), answer.text
    assert "PRIVATE KEY" not in answer.text


def libvirtd(lab: Lab, host: str) -> ProcessId | None:
    """A host's libvirtd; None when none runs."""
    return host_of(lab, host).libvirtd()


def guest_pids(lab: Lab, host: str) -> frozenset[int]:
    """Processes of the guests that run on a host."""
    inside = host_of(lab, host).pid_namespace()
    return frozenset(
        pid
        for pid in processes.pids()
        if guest_name(processes.arguments(pid)) and processes.pid_namespace(pid) == inside
    )


def restarts_over_ssh(lab: Lab, host: str) -> tuple[str, ...]:
    """One line for each restart of a host's libvirtd that was asked for over SSH."""
    return sshd.restarts(lab.paths.host(host))


def host_of(lab: Lab, host: str) -> Host:
    state = lab.state()
    return Host(state, lab.paths, host_named(state, host))


def restarts_of(center: Center, host: str) -> list[dict[str, Any]]:
    """Operations that restarted a host's libvirtd, newest first."""
    found = center.get("/operations", kind="host.restart_libvirtd")["items"]
    return [item for item in found if item["target_id"] == center.hosts[host]]


def soft_step(center: Center, host: str) -> Any:
    """The last one on a host, or None."""
    return center.get(f"/hosts/{center.hosts[host]}/ssh")["soft_step"]


def test_a_frozen_libvirtd_is_restarted_once_and_its_guests_run_untouched(
    center: Center, figure: Figure
) -> None:
    vms = [center.running_vm("steady", "h1") for _ in range(2)]
    guests, epoch = guest_pids(center.lab, "h1"), center.host("h1")["epoch"]
    before, known = libvirtd(center.lab, "h1"), len(center.incidents("h1"))
    with center.lab.sampler() as sampler:
        center.lab.hang("h1")
        until(lambda: soft_step(center, "h1"), "the engine begins a soft step")
        until(lambda: center.host("h1")["state"] == "up", "h1 is up again")
        until(lambda: soft_step(center, "h1")["outcome"], "the soft step has ended")
        center.assert_one_copy_each(sampler.result(), *vms)
    host, step = center.host("h1"), soft_step(center, "h1")
    assert (step["outcome"], step["automatic"], step["tries"]) == ("answered", True, 1)
    assert len(guest_pids(center.lab, "h1")) == 2
    assert guest_pids(center.lab, "h1") == guests
    assert libvirtd(center.lab, "h1") not in (before, None)
    assert host["epoch"] == epoch
    assert len(center.incidents("h1")) == known, "nobody thought of a fence"
    assert len(restarts_over_ssh(center.lab, "h1")) == 1
    (operation,) = restarts_of(center, "h1")
    steps = [item["name"] for item in center.get(f"/operations/{operation['id']}")["steps"]]
    assert steps == ["soft.claim", "soft.restart", "soft.read_back", "soft.end"]
    assert [vm["host_name"] for vm in map(center.vm, vms)] == ["h1", "h1"]
    kinds = ("host.soft_step", "host.soft_step_ended")
    # An event is in the list once it has got its number, which is soon after it was written.
    until(lambda: center.events(kinds[1], "h1"), "the end of the soft step is told")
    assert [len(center.events(kind, "h1")) for kind in kinds] == [1, 1]
    figure(f"{step['detail']}; from {step['at']} to {step['ended_at']}")


def polled(center: Center, host: str) -> list[str]:
    """The VMs that the last poll of a host has shown: those that a restart is to leave alive."""
    (newest,) = center.get(f"/hosts/{center.hosts[host]}/samples", limit=1)
    return [guest["vm_id"] for guest in newest["guests"]]


def test_a_person_restarts_the_libvirtd_of_a_host_that_answers(center: Center) -> None:
    vm = center.running_vm("asked", "h2")
    until(lambda: vm.id in polled(center, "h2"), "a poll of h2 has shown it")
    guests, before = guest_pids(center.lab, "h2"), libvirtd(center.lab, "h2")
    operation = center.act(f"/hosts/{center.hosts['h2']}/actions/restart-libvirtd")
    assert "all 1 guests run on" in operation["summary"]
    assert libvirtd(center.lab, "h2") not in (before, None)
    assert guest_pids(center.lab, "h2") == guests
    until(lambda: center.host("h2")["state"] == "up", "h2 is up")
    assert center.vm(vm)["host_name"] == "h2"


def test_a_host_with_another_key_than_the_pinned_one_gets_nothing(center: Center) -> None:
    other = sshd.host_key(center.lab.paths.host("h3"))
    give_access(center, "h2", host_key=other)
    before, done = libvirtd(center.lab, "h2"), len(restarts_over_ssh(center.lab, "h2"))
    try:
        asked = center.post(f"/hosts/{center.hosts['h2']}/actions/restart-libvirtd")
        ended = center.ended(asked["id"])
        assert (ended["state"], ended["problem"]["code"]) == ("failed", "SSH_HOST_KEY_CHANGED")
        assert libvirtd(center.lab, "h2") == before
        assert len(restarts_over_ssh(center.lab, "h2")) == done
    finally:
        give_access(center, "h2")


def test_the_private_key_is_in_no_file_of_the_engine(center: Center, engine_var: Path) -> None:
    entry = next(each.ssh for each in center.lab.inventory().hosts if each.name == "h1")
    line = Path(entry.key_file).read_text().splitlines()[2].encode()
    files = [path for path in engine_var.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files), "the database was not looked at"
    assert [path for path in files if line in path.read_bytes()] == []
