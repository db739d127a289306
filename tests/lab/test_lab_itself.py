"""The lab does what it promises: silent power cuts, honest and lying controllers, no left-overs."""

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import libvirt
import pytest
from typer.testing import CliRunner

from cli.lab import app
from domain.errors import Conflict, Invalid, NotFound
from lab import bmc_control, guest_image, network, processes, requirements
from lab.inventory import HostInventory
from lab.lab import Lab
from lab.sampler import guest_name

pytestmark = pytest.mark.lab

PATIENCE_S = 60.0
LIBVIRT_PORT = 16509


def until(holds: Callable[[], object], what: str) -> None:
    processes.until(lambda: bool(holds()), PATIENCE_S, what, poll_s=0.05)


def entry(lab: Lab, host: str) -> HostInventory:
    return next(each for each in lab.inventory().hosts if each.name == host)


@contextmanager
def connected(lab: Lab, host: str) -> Iterator[libvirt.virConnect]:
    connection = libvirt.open(entry(lab, host).uri)
    try:
        yield connection
    finally:
        connection.close()


def domain_xml(lab: Lab, name: str, uuid: str, disk: Path | None = None) -> str:
    boot = lab.inventory().guest
    drive = (
        f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    return f"""<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid>
      <memory unit='MiB'>96</memory><vcpu>1</vcpu>
      <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{boot.kernel}</kernel>
        <initrd>{boot.initrd}</initrd><cmdline>{boot.cmdline}</cmdline></os>
      <features><acpi/></features>
      <devices>{drive if disk else ""}<memballoon model='none'/>
        <serial type='file'><source path='{console_of(lab, name)}'/></serial></devices>
    </domain>"""


def console_of(lab: Lab, name: str) -> Path:
    return lab.paths.shared / f"{name}.console"


def is_ready(lab: Lab, name: str) -> bool:
    path = console_of(lab, name)
    return path.exists() and guest_image.READY in path.read_text(errors="replace")


def start(lab: Lab, host: str, name: str, *, uuid: str = "", disk: Path | None = None) -> None:
    with connected(lab, host) as connection:
        connection.defineXML(domain_xml(lab, name, uuid or str(uuid4()), disk)).create()


def guests_on(lab: Lab, host: str) -> tuple[str, ...]:
    return next(each.guests for each in lab.status().hosts if each.name == host)


def fence(lab: Lab, host: str, action: str, password: str | None = None) -> tuple[int, str]:
    """Run the real agent; its power_wait of 2 s would only make the test slower."""
    access = entry(lab, host).bmc
    options = {
        **access.options,
        "password": access.password if password is None else password,
        "power_wait": "0",
        "action": action,
    }
    done = subprocess.run(
        [access.agent],
        input="".join(f"{name}={value}\n" for name, value in options.items()),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    return done.returncode, done.stdout


def ask_power_once(lab: Lab, host: str) -> str:
    """One question of one second, so that a silent controller does not hold the test up."""
    access = entry(lab, host).bmc
    done = subprocess.run(
        [
            *("ipmitool", "-I", "lanplus", "-N", "1", "-R", "1", "-E"),
            *("-H", access.options["ip"], "-p", access.options["ipport"]),
            *("-U", access.options["username"], "chassis", "power", "status"),
        ],
        env={**os.environ, "IPMI_PASSWORD": access.password},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    return done.stdout.strip()


def power(lab: Lab, host: str) -> bool:
    return next(each.power for each in lab.status().hosts if each.name == host)


def test_up_run_again_restarts_nothing_and_completes_what_is_missing(lab: Lab) -> None:
    before = lab.pid_namespaces()
    lab.up()
    assert lab.pid_namespaces() == before
    lab.crash("h1")
    folder = lab.paths.host("h2")
    processes.end(bmc_control.process_of(folder))
    lab.isolate("h3")
    lab.up()
    status = lab.status()
    assert [host.libvirt for host in status.hosts] == ["answers"] * 3
    assert [host.bmc for host in status.hosts] == ["ok"] * 3
    kept = {inode for inode, host in before.items() if host != "h1"}
    assert kept < set(lab.pid_namespaces())


def test_a_host_whose_record_is_lost_still_counts_as_on_and_is_not_booted_twice(lab: Lab) -> None:
    before = lab.pid_namespaces()
    (lab.paths.host("h1") / "init.json").unlink()
    assert fence(lab, "h1", "status")[0] == 0
    lab.power_on("h1")
    assert lab.pid_namespaces() == before
    lab.crash("h1")
    assert not power(lab, "h1")


def test_a_lab_that_exists_differently_is_refused(lab: Lab) -> None:
    with pytest.raises(Conflict, match="LAB_DIFFERS"):
        Lab(lab.name, hosts=7, var=lab.paths.root.parent.parent).up()


def test_a_second_lab_on_the_same_network_is_refused_and_leaves_nothing(
    lab: Lab, tmp_path: Path
) -> None:
    other = Lab("other", k=lab.state().k, hosts=1, var=tmp_path)
    with pytest.raises(Conflict, match="LAB_NETWORK_TAKEN"):
        other.up()
    assert network.interfaces_of("other") == ()
    with pytest.raises(NotFound, match="LAB_NOT_UP"):
        other.status()


def test_unknown_hosts_modes_and_names_are_refused_by_name(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="h1, h2, h3"):
        lab.crash("h9")
    with pytest.raises(Invalid, match="sulking"):
        lab.bmc("h1", "sulking")
    with pytest.raises(Invalid, match="LAB_NAME_INVALID"):
        Lab("much-too-long", var=tmp_path)


def test_a_power_cut_is_silent(lab: Lab) -> None:
    with socket.create_connection((entry(lab, "h1").address, LIBVIRT_PORT), timeout=5) as peer:
        lab.crash("h1")
        peer.settimeout(1.0)
        with pytest.raises(TimeoutError):
            peer.recv(1)
    assert not power(lab, "h1")


def test_a_killed_libvirtd_is_not_silent_and_comes_back_with_its_guests(lab: Lab) -> None:
    start(lab, "h1", "keeps")
    with socket.create_connection((entry(lab, "h1").address, LIBVIRT_PORT), timeout=5) as peer:
        lab.kill_libvirtd("h1")
        peer.settimeout(PATIENCE_S)
        try:
            said = peer.recv(1)
        except ConnectionResetError:
            said = b""
        assert said == b""
    lab.wait_ready("h1")
    with connected(lab, "h1") as connection:
        assert connection.lookupByName("keeps").isActive()


def test_power_reads_off_after_a_crash_and_the_controller_switches_it_on_again(lab: Lab) -> None:
    start(lab, "h1", "lost")
    assert fence(lab, "h1", "status") == (0, "Status: ON\n")
    lab.crash("h1")
    code, said = fence(lab, "h1", "status")
    assert (code, "OFF" in said) == (2, True)
    assert guests_on(lab, "h1") == ()
    assert fence(lab, "h1", "on")[0] == 0
    lab.wait_ready("h1")
    with connected(lab, "h1") as connection:
        assert not connection.lookupByName("lost").isActive()


def test_off_through_the_controller_ends_every_guest(lab: Lab) -> None:
    start(lab, "h2", "ends")
    assert guests_on(lab, "h2") == ("ends",)
    assert fence(lab, "h2", "off")[0] == 0
    assert guests_on(lab, "h2") == ()
    assert not power(lab, "h2")
    assert fence(lab, "h2", "off")[0] == 0, "a host that is off already is success"


def test_a_wrong_password_reads_as_neither_on_nor_off(lab: Lab) -> None:
    code, said = fence(lab, "h1", "status", password="wrong")
    assert code not in (0, 2)
    assert "ON" not in said
    assert "OFF" not in said


def test_an_isolated_host_keeps_its_guests_and_its_power_controller(lab: Lab) -> None:
    start(lab, "h1", "alone")
    before = lab.pid_namespaces()
    lab.isolate("h1")
    isolated = next(host for host in lab.status().hosts if host.name == "h1")
    assert (isolated.power, isolated.link, isolated.libvirt) == (True, False, "silent")
    assert isolated.guests == ("alone",)
    assert fence(lab, "h1", "status")[0] == 0
    lab.heal("h1")
    lab.wait_ready("h1")
    assert lab.pid_namespaces() == before
    with connected(lab, "h1") as connection:
        assert connection.lookupByName("alone").isActive()


def test_a_frozen_libvirtd_leaves_its_guests_running_until_it_goes_on(lab: Lab) -> None:
    start(lab, "h1", "unaware")
    lab.hang("h1")
    frozen = next(host for host in lab.status().hosts if host.name == "h1")
    assert (frozen.libvirt, frozen.guests) == ("frozen", ("unaware",))
    lab.unhang("h1")
    lab.wait_ready("h1")
    assert guests_on(lab, "h1") == ("unaware",)


def test_a_lying_controller_says_off_while_the_guests_run_on(lab: Lab) -> None:
    start(lab, "h1", "survivor")
    lab.bmc("h1", "lying")
    assert fence(lab, "h1", "status")[0] == 0
    assert fence(lab, "h1", "off")[0] == 0
    assert fence(lab, "h1", "status")[0] == 2
    assert power(lab, "h1")
    assert guests_on(lab, "h1") == ("survivor",)
    lab.bmc("h1", "ok")
    assert fence(lab, "h1", "status")[0] == 0


@pytest.mark.parametrize("mode", ["dead", "hanging"])
def test_a_controller_that_gives_no_answer_says_nothing_until_it_is_mended(
    lab: Lab, mode: str
) -> None:
    lab.bmc("h1", mode)
    assert ask_power_once(lab, "h1") == ""
    lab.bmc("h1", "ok")
    until(
        lambda: ask_power_once(lab, "h1") == "Chassis Power is on", "the controller answers again"
    )


def test_a_transient_pool_outlives_libvirtd_but_not_a_reboot(lab: Lab) -> None:
    mark = "<pool type='dir'><name>holdfast-epoch-7</name><target><path>/run</path></target></pool>"
    with connected(lab, "h1") as connection:
        connection.storagePoolCreateXML(mark)
    lab.kill_libvirtd("h1")
    lab.wait_ready("h1")
    with connected(lab, "h1") as connection:
        assert connection.listStoragePools() == ["holdfast-epoch-7"]
    lab.crash("h1")
    lab.power_on("h1")
    lab.wait_ready("h1")
    with connected(lab, "h1") as connection:
        assert connection.listStoragePools() == []


def test_a_guest_boots_writes_to_its_disk_and_heeds_the_power_button(lab: Lab) -> None:
    disk = lab.paths.shared / "heartbeat.raw"
    disk.write_bytes(bytes(1 << 20))
    start(lab, "h1", "polite", disk=disk)
    until(lambda: is_ready(lab, "polite"), "the guest reaches its init")
    until(lambda: disk.read_bytes().startswith(b"heartbeat "), "the guest writes to its disk")
    assert guest_image.FAULT not in console_of(lab, "polite").read_text(errors="replace")
    with connected(lab, "h1") as connection:
        domain = connection.lookupByName("polite")
        domain.shutdown()
        until(lambda: not domain.isActive(), "the guest switches itself off")


def test_the_sampler_sees_two_copies_of_one_guest_and_when_they_end(lab: Lab) -> None:
    uuid = str(uuid4())
    with lab.sampler() as sampler:
        start(lab, "h1", "twin", uuid=uuid)
        until(lambda: sampler.result().hosts_of("twin") == ("h1",), "the first copy is seen")
        assert sampler.result().copies_max("twin") == 1
        start(lab, "h2", "twin", uuid=uuid)
        until(lambda: sampler.result().copies_max("twin") == 2, "the second copy is seen")
        lab.crash("h1")
        until(lambda: sampler.result().hosts_of("twin") == ("h2",), "the first copy is gone")
    samples = sampler.result()
    assert samples.copies_max(uuid) == 2
    assert samples.doubled() == tuple(sorted(("twin", uuid)))
    story = [(seen.what, seen.guest.host) for seen in samples.timeline]
    assert story == [("appeared", "h1"), ("appeared", "h2"), ("vanished", "h1")]


def test_the_sampler_counts_a_paused_guest(lab: Lab) -> None:
    with connected(lab, "h1") as connection:
        connection.defineXML(domain_xml(lab, "asleep", str(uuid4()))).createWithFlags(
            libvirt.VIR_DOMAIN_START_PAUSED
        )
    with lab.sampler() as sampler:
        assert sampler.result().hosts_of("asleep") == ("h1",)


def test_the_sampler_takes_no_guest_of_a_host_that_is_not_its_own(lab: Lab) -> None:
    start(lab, "h1", "foreign")
    with lab.sampler() as ours:
        assert ours.result().hosts_of("foreign") == ("h1",)
    blind = type(ours)(dict)
    with blind:
        assert blind.result().most == {}


def test_a_zombie_counts_as_gone() -> None:
    child = subprocess.Popen(["true"])
    try:
        until(lambda: (found := processes.stat(child.pid)) and found.state == "Z", "it has ended")
        assert processes.identify(child.pid) is None
    finally:
        child.wait()


def test_a_probe_of_qemu_is_no_guest() -> None:
    assert guest_name(("qemu-system-x86_64", "-S", "-no-user-config")) is None
    assert guest_name(("qemu-system-x86_64", "-name", "guest=web 1,debug-threads=on")) == "web 1"


def test_down_leaves_nothing_even_after_its_files_are_lost(
    own_lab: Callable[[int], Lab],
) -> None:
    doomed = own_lab(1)
    doomed.up()
    start(doomed, "h1", "orphan")
    doomed.bmc("h1", "dead")
    doomed.hang("h1")
    doomed.paths.state.unlink()
    for note in doomed.paths.host("h1").glob("*.json"):
        note.unlink()
    doomed.down()
    root = str(doomed.paths.root)
    left = [pid for pid in processes.pids() if root in " ".join(processes.arguments(pid))]
    assert left == []
    assert network.interfaces_of(doomed.name) == ()
    assert network.namespaces_of(doomed.name) == ()
    assert root not in Path("/proc/self/mounts").read_text()
    assert not doomed.paths.root.exists()
    doomed.down()


def test_the_password_stands_in_a_private_file_and_in_no_command_line(lab: Lab) -> None:
    assert lab.paths.state.stat().st_mode & 0o777 == 0o600
    password = lab.state().bmc_password
    shown = [pid for pid in processes.pids() if password in " ".join(processes.arguments(pid))]
    assert shown == []


def test_the_command_line_shows_the_lab_as_json_and_explains_a_refusal(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_VAR", str(lab.paths.root.parent.parent))
    shown = CliRunner().invoke(app, ["status", "--name", lab.name, "-o", "json"])
    assert [host["name"] for host in json.loads(shown.stdout)["hosts"]] == ["h1", "h2", "h3"]
    refused = CliRunner().invoke(app, ["crash", "h9", "--name", lab.name])
    assert refused.exit_code == 1
    assert "it has h1, h2, h3" in refused.stderr


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "SEARCH_PATH", "/nonexistent")
    assert {"libvirt-clients", "qemu-system-x86", "ipmitool"} <= set(requirements.missing())
    assert any("apt-get install" in obstacle for obstacle in requirements.obstacles())
