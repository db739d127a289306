"""What a person may ask of a fleet, and what outlives its stop."""

from pathlib import Path
from uuid import UUID

import pytest

from cli.fleet import check_folder, refuse_real_hosts
from domain.errors import Conflict, EngineError, Invalid
from domain.profiles import Profile
from simulator.fleet.place import FILE, has_fleet, socket_of
from simulator.fleet.saved import FleetFile, read_file, restore, save
from simulator.fleet.server import made
from simulator.fleet.spec import FleetSpec, parse_fleet
from simulator.world.host import Bmc, Libvirtd, VirtualDomain
from simulator.world.network import Net
from store import inventory
from worker.settings import Settings

pytestmark = pytest.mark.unit

VM = UUID(int=7)


def test_every_part_of_a_fleet_is_read_and_written_back() -> None:
    spec = parse_fleet("sim:hosts=4,vms=9,profile=fast,racks=2,memory=64G")
    assert spec == FleetSpec(hosts=4, vms=9, profile=Profile.FAST, racks=2, memory=65536)
    assert parse_fleet(str(spec)) == spec
    assert [spec.rack_of(number) for number in (1, 2, 3)] == ["rack-1", "rack-2", "rack-1"]


def test_what_is_left_away_has_a_default_with_room_for_a_lost_host() -> None:
    spec = parse_fleet("sim:")
    assert (spec.hosts, spec.vms, spec.profile) == (5, 40, Profile.BALANCED)
    assert (spec.hosts - 1) * spec.memory_mib >= spec.vms * 1024
    assert parse_fleet(" sim:hosts=1,vms=0 ").host_names == ("h1",)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "begins with sim:"),
        ("lab:hosts=3", "begins with sim:"),
        ("sim:host=3", "did you mean hosts?"),
        ("sim:colour=red", "it has hosts, vms, profile, racks, memory"),
        ("sim:hosts", "hosts needs one value"),
        ("sim:hosts=", "hosts needs one value"),
        ("sim:hosts=3,hosts=4", "hosts needs one value"),
        ("sim:hosts=three", "hosts: "),
        ("sim:hosts=0", "hosts: "),
        ("sim:hosts=201", "hosts: Input should be less than or equal to 200"),
        ("sim:vms=5001", "vms: Input should be less than or equal to 5000"),
        ("sim:hosts=2,racks=3", "3 racks are more than 2 hosts"),
        ("sim:profile=brisk", "profile: "),
        ("sim:memory=lots", "no amount of memory"),
        ("sim:hosts=2,vms=9,memory=4G", "carry 8 VMs of 1024 MiB, not 9"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused_with_the_reason(text: str, word: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_fleet(text)
    assert refused.value.code == "FLEET_INVALID"
    assert word in refused.value.detail
    assert "sim:hosts=5,vms=40" in refused.value.next_step


def test_a_world_that_was_saved_stands_as_it_was_left(tmp_path: Path) -> None:
    spec = FleetSpec(hosts=3, vms=1)
    left = made(spec, None)
    h1, h2, h3 = left.hosts.values()
    h1.mark = 4
    h1.domains[VM] = VirtualDomain("db", 128, 2)
    left.run(h1, VM, h1.domains[VM])
    h2.lose_power()
    h3.set_libvirtd(Libvirtd.HUNG)
    h3.bmc = Bmc.LYING
    left.networks[Net.MANAGEMENT].isolate("h3")
    FleetFile(spec=spec, built=True, world=save(left)).write(tmp_path)
    file = read_file(tmp_path)
    assert file is not None
    assert file.world is not None
    again = made(file.spec, None)
    restore(file.world, again)
    assert save(again) == save(left)
    assert again.copies(VM) == ["h1"]
    assert again.copies_max[VM] == 1
    assert [host.answers for host in again.hosts.values()] == [True, False, False]


def test_a_file_that_is_no_fleet_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.raises(Invalid) as refused:
        read_file(tmp_path)
    assert refused.value.code == "FLEET_FILE_UNREADABLE"
    assert "remove it" in refused.value.next_step


def refusal(var: Path, fleet: str) -> EngineError:
    with pytest.raises(EngineError) as refused:
        check_folder(Settings(var=var, fleet=fleet))
    return refused.value


def test_a_folder_keeps_the_fleet_that_it_has(tmp_path: Path) -> None:
    assert not has_fleet(tmp_path)
    check_folder(Settings(var=tmp_path, fleet="sim:hosts=3,vms=4"))
    check_folder(Settings(var=tmp_path))
    FleetFile(spec=FleetSpec(hosts=3, vms=4)).write(tmp_path)
    assert has_fleet(tmp_path)
    check_folder(Settings(var=tmp_path, fleet="sim:vms=4,hosts=3"))
    other, none = refusal(tmp_path, "sim:hosts=4,vms=4"), refusal(tmp_path, "")
    assert (other.code, none.code) == ("FLEET_DIFFERS", "FLEET_FOLDER")
    assert "--fleet sim:hosts=3,vms=4" in other.next_step
    assert "--fleet sim:hosts=3,vms=4" in none.next_step
    assert isinstance(other, Conflict)


async def test_an_engine_with_real_hosts_is_given_no_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"name": "h1", "uri": "qemu+tcp://h1/system"}]

    async def listing(_connection: object, _entity: str) -> list[dict[str, str]]:
        return rows

    monkeypatch.setattr(inventory, "listing", listing)
    settings = Settings(var=tmp_path, fleet="sim:hosts=3,vms=4")
    await refuse_real_hosts(settings)
    rows.append({"name": "node1", "uri": "qemu+tls://node1.example/system"})
    with pytest.raises(Conflict) as refused:
        await refuse_real_hosts(settings)
    assert refused.value.code == "FLEET_BESIDE_HOSTS"
    assert "node1" in refused.value.detail


def test_a_folder_too_deep_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        socket_of(tmp_path / ("x" * 100))
    assert refused.value.code == "FLEET_PATH_TOO_LONG"
