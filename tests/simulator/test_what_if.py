"""What a loss would do: watched on a stage, told for people and programs."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from domain.errors import Invalid
from domain.profiles import Profile
from simulator.setup import GroupSetup
from simulator.what_if.inventory import Cluster, Host, Inventory, Vm, inventory_of, read_inventory
from simulator.what_if.play import Loss, losses_of, play

pytestmark = pytest.mark.unit

HOSTS = (
    Host(name="h1", rack="r1", memory_mib=1024, fence_devices=1),
    Host(name="h2", rack="r1", memory_mib=1024, fence_devices=1),
    Host(name="h3", rack="r2", memory_mib=512, fence_devices=1),
)
VMS = (
    Vm(name="web", host="h1", memory_mib=128, protected=True, depends_on=("db",), budget_s=60),
    Vm(name="db", host="h1", memory_mib=128, protected=True, priority=90),
    Vm(name="big", host="h1", memory_mib=600, protected=True),
    Vm(name="other", host="h2", memory_mib=700, protected=True),
    Vm(name="scratch", host="h1", memory_mib=16),
)
CLUSTER = Cluster(name="c1", profile=Profile.BALANCED, hosts=HOSTS, vms=VMS)
H1 = (Loss(kind="host", name="h1"),)


def written(folder: Path, inventory: Inventory) -> Path:
    path = folder / "inventory.json"
    path.write_text(inventory.model_dump_json())
    return path


def asked(path: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["simulate", "what-if", str(path), *words])
    return result.exit_code, result.stdout


def test_vms_come_back_elsewhere_and_the_one_without_room_says_what_it_lacks() -> None:
    answer = play(CLUSTER, H1)
    vms = {vm.name: vm for vm in answer.vms}
    assert answer.broken == ()
    assert list(vms) == ["db", "web", "big", "scratch"]
    assert {vms["db"].on, vms["web"].on} <= {"h2", "h3"}
    assert vms["db"].back_s is not None
    assert vms["web"].back_s is not None
    assert vms["db"].back_s < vms["web"].back_s < 10
    assert "600 MiB" in vms["big"].why
    assert "not protected" in vms["scratch"].why
    assert not answer.all_back


def test_a_vm_for_which_nobody_has_the_vcpus_says_so() -> None:
    hosts = tuple(
        host.model_copy(update={"cpus": cpus}) for host, cpus in zip(HOSTS, (4, 4, 1), strict=True)
    )
    vms = tuple(
        Vm(name=name, host=host, memory_mib=128, protected=True, priority=priority)
        for name, host, priority in (("a", "h1", 90), ("b", "h1", 50), ("c", "h2", 50))
    )
    change = {"hosts": hosts, "vms": vms, "vcpu_overcommit": 0.5}
    found = {vm.name: vm for vm in play(CLUSTER.model_copy(update=change), H1).vms}
    assert found["a"].on == "h2"
    assert "no host has 1 vCPU left for b: h2 holds 2 of 2, h3 holds 0 of 0" in found["b"].why


def test_a_host_that_holds_more_than_the_limit_of_the_file_is_refused() -> None:
    crowded = CLUSTER.model_copy(update={"vcpu_overcommit": 2.0})
    with pytest.raises(Invalid, match="h1 holds 4 vCPUs, and may hold 2") as refused:
        play(crowded, H1)
    assert refused.value.code == "INVENTORY_CROWDED"


def test_a_host_that_holds_more_memory_than_the_ratio_of_the_file_is_refused() -> None:
    held = sum(vm.memory_mib for vm in CLUSTER.vms if vm.host == "h1")
    hosts = tuple(
        host.model_copy(update={"memory_mib": held - 1}) if host.name == "h1" else host
        for host in CLUSTER.hosts
    )
    crowded = CLUSTER.model_copy(update={"hosts": hosts})
    with pytest.raises(Invalid, match=f"h1 holds {held} MiB, and may hold {held - 1}") as refused:
        play(crowded, H1)
    assert refused.value.next_step == (
        "write a larger `memory_overcommit` into the file, or take VMs away"
    )
    play(crowded.model_copy(update={"memory_overcommit": 1.5}), H1)


def test_the_host_is_said_to_be_proven_dead_and_when() -> None:
    (host,) = play(CLUSTER, H1).hosts
    assert (host.name, host.state, host.fenced) == ("h1", "down", False)
    assert host.proven_s is not None
    assert 0 < host.proven_s < 10


def test_a_controller_that_dies_with_its_host_leaves_all_waiting_and_says_why() -> None:
    answer = play(CLUSTER, H1, bmc_dies=True)
    assert [host.proven_s for host in answer.hosts] == [None]
    assert not any(vm.back for vm in answer.vms)
    assert any("BMC_NO_ANSWER" in wait for wait in answer.waits)
    assert all("BMC_NO_ANSWER" in vm.why for vm in answer.vms if vm.protected)


def test_a_host_whose_proof_shares_its_supply_blocks_on_power_loss_and_is_told_so() -> None:
    hosts = (HOSTS[0].model_copy(update={"blocks_on_power_loss": True}), *HOSTS[1:])
    answer = play(CLUSTER.model_copy(update={"hosts": hosts}), H1)
    (h1,) = answer.hosts
    assert (h1.blocks, h1.proven_s) == (True, None)
    assert not any(vm.back for vm in answer.vms)
    assert answer.waits != ()


def test_a_rack_takes_all_its_hosts() -> None:
    answer = play(CLUSTER, (Loss(kind="rack", name="r1"),))
    assert {host.name for host in answer.hosts} == {"h1", "h2"}


def test_the_same_question_gets_the_same_answer_and_later_losses_come_later() -> None:
    assert play(CLUSTER, H1, seed=3) == play(CLUSTER, H1, seed=3)
    late = play(CLUSTER, (*H1, Loss(kind="host", name="h3", at_s=40)))
    (h3,) = [host for host in late.hosts if host.name == "h3"]
    assert h3.proven_s is not None
    assert h3.proven_s > 40


def test_an_isolated_answer_keeps_hard_rules_of_the_inventory() -> None:
    apart = GroupSetup(name="apart", together=False, hard=True, vms=("db", "other"))
    cluster = CLUSTER.model_copy(update={"groups": (apart,)})
    vms = {vm.name: vm for vm in play(cluster, H1).vms}
    assert vms["db"].on == "h3"


def test_a_host_out_of_service_is_left_out_with_what_ran_there() -> None:
    down = HOSTS[1].model_copy(update={"state": "down"})
    cluster = CLUSTER.model_copy(update={"hosts": (HOSTS[0], down, HOSTS[2])})
    setup = cluster.setup()
    assert [host.name for host in setup.hosts] == ["h1", "h3"]
    assert "other" not in {vm.name for vm in setup.vms}


@pytest.mark.parametrize(
    ("words", "at_s", "said"),
    [
        (["h1"], [], "neither host:NAME nor rack:NAME"),
        (["host:h 1"], [], "neither host:NAME"),
        (["host:h1"], [1.0, 2.0], "2 times --at"),
        (["host:h1"], [-1.0], "before the beginning"),
    ],
)
def test_a_loss_that_cannot_be_read_is_refused(
    words: list[str], at_s: list[float], said: str
) -> None:
    with pytest.raises(Invalid, match=said) as refused:
        losses_of(words, at_s)
    assert refused.value.next_step


def test_losses_take_their_times_in_order_and_the_last_time_repeats() -> None:
    found = losses_of(["host:h1", "rack:r1", "host:h3"], [1, 5])
    assert [(loss.name, loss.at_s) for loss in found] == [("h1", 1), ("r1", 5), ("h3", 5)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Invalid JSON"),
        ('{"format": "other/1", "clusters": []}', "has the format"),
        ('{"clusters": [{"name": "c1", "profile": "hasty"}]}', "clusters.0.profile"),
        ('{"clusters": [], "more": 1}', "more"),
    ],
)
def test_a_file_that_is_no_inventory_is_refused_and_says_where(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "inventory.json"
    path.write_text(text)
    with pytest.raises(Invalid, match=said):
        read_inventory(path)


def test_a_circle_of_dependencies_is_refused_and_named() -> None:
    circle = (
        VMS[0].model_copy(update={"depends_on": ("db",)}),
        VMS[1].model_copy(update={"depends_on": ("web",)}),
    )
    with pytest.raises(Invalid, match="db, web"):
        CLUSTER.model_copy(update={"vms": circle}).setup()


def test_the_command_prints_a_table_and_ends_with_1_where_a_protected_vm_stays_down(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, Inventory(clusters=(CLUSTER,)))
    code, text = asked(path, "--lose", "host:h1")
    assert code == 1
    assert "dead, proven" in text
    assert "big" in text
    code, text = asked(path, "--lose", "host:h3", "--json")
    assert code == 0
    assert json.loads(text)[0]["all_back"] is True


def test_a_loss_that_hits_nothing_is_a_mistake_in_the_command(tmp_path: Path) -> None:
    path = written(tmp_path, Inventory(clusters=(CLUSTER,)))
    assert asked(path, "--lose", "rack:nowhere")[0] != 0


API: dict[str, list[dict[str, Any]]] = {
    "/clusters": [
        {"id": "c", "name": "c1", "profile": "fast", "armed": True, "vcpu_overcommit": 2.5}
    ],
    "/hosts": [
        {
            "id": "h",
            "cluster_id": "c",
            "name": "h1",
            "state": "up",
            "memory_mib": 1024,
            "cpus": 0,
            "fencing": {"blocks_on_power_loss": True},
        }
    ],
    "/vms": [
        {
            "id": "v",
            "cluster_id": "c",
            "name": "db",
            "host_name": "h1",
            "memory_mib": 128,
            "vcpus": 1,
            "protected": True,
            "priority": 50,
            "budget_s": None,
            "depends_on": ["gone"],
        }
    ],
    "/fence-devices": [{"host_id": "h"}, {"host_id": "other"}],
    "/affinity-groups": [
        {
            "cluster_id": "c",
            "name": "g",
            "together": True,
            "hard": False,
            "vm_ids": ["v"],
            "host_ids": ["h"],
        }
    ],
}


class Lists:
    """An API with one of everything."""

    def all(self, path: str, **_params: Any) -> list[dict[str, Any]]:
        return API[path]


def test_an_export_holds_what_is_played_and_reads_back(tmp_path: Path) -> None:
    found = inventory_of(Lists(), "2030-01-01T00:00:00+00:00")
    (cluster,) = found.clusters
    known = Host(name="h1", memory_mib=1024, cpus=1, fence_devices=1, blocks_on_power_loss=True)
    assert cluster.hosts == (known,)
    assert cluster.vcpu_overcommit == 2.5
    assert cluster.vms[0].depends_on == ()
    assert cluster.groups[0].hosts == ("h1",)
    assert read_inventory(written(tmp_path, found)) == found
