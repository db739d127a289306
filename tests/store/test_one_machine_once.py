"""A machine, and a power controller, is one thing however often and however it is spelt."""

from typing import Any
from uuid import UUID

import pytest

from activities.hosts import Hosts, HostStep
from domain.errors import Conflict, EngineError
from domain.orders import HostRef
from domain.profiles import Policy
from domain.readings import Domain, DomainState
from engine.actions.fence_devices import AddFenceDevice, EditFenceDevice
from engine.actions.host_config import AddHost, EditHost
from store import runs
from store.ids import new_id
from tests.fakes import DataCentre, FakeDomain, FakeHost, FakeHypervisor, FakePower
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store

OTHER_SPELLING = "qemu+ssh://root@H1:22/system?keyfile=/etc/key"


async def test_a_machine_is_added_once_however_its_address_is_spelt(engine: Engine) -> None:
    await engine.world.host("h1", uri="qemu+tcp://h1/system")
    params = AddHost(cluster_id=engine.world.cluster_id, name="h2", uri=OTHER_SPELLING)
    refused = await engine.refusal(params)
    assert (refused.code, refused.context["host"]) == ("URI_TAKEN", "h1")


async def test_a_host_takes_another_spelling_of_its_own_address_only(engine: Engine) -> None:
    await engine.world.host("h1", uri="qemu+tcp://h1/system", state="down")
    other = await engine.world.host("h2", uri="qemu+tcp://h2/system", state="down")
    assert (await engine.refusal(EditHost(host_id=other, uri=OTHER_SPELLING))).code == "URI_TAKEN"
    await engine.act(EditHost(host_id=other, uri="qemu+tcp://H2:16509/system"))
    assert (await engine.world.get("host", other))["uri"] == "qemu+tcp://H2:16509/system"


class Twice:
    """A machine that is host h1, and is added as `second`, at an address that nobody compares."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.centre = engine, DataCentre()
        self.machine: FakeHost = self.centre.add("h1")
        self.hosts = Hosts(FakeHypervisor(self.centre), FakePower(self.centre), engine.hosts)

    async def running(self, host_id: UUID) -> UUID:
        """A VM that runs on the machine as host h1's."""
        vm_id = await self.engine.world.vm("db")
        run = await self.engine.world.running(vm_id, host_id)
        self.centre.run(self.machine, vm_id, FakeDomain("db", 256, run["generation"]))
        return vm_id

    async def reconcile(self, epoch: int = 0) -> Any:
        """Settle the machine as the second host."""
        second = await self.engine.world.host("second", state="reconciling", epoch=epoch)
        host = HostRef(host_id=second, name="second", uri=self.machine.uri, epoch=epoch)
        step = HostStep(operation_id=new_id(), host=host, policy=Policy())
        return await self.hosts.reconcile(step)

    async def refused(self, epoch: int = 0) -> EngineError:
        """The refusal of it; what was there is as it was."""
        mark, domains = self.machine.mark, dict(self.machine.domains)
        with pytest.raises(EngineError) as caught:
            await self.reconcile(epoch)
        assert (self.machine.mark, self.machine.domains) == (mark, domains)
        return caught.value


@pytest.mark.parametrize("state", ["up", "connecting", "non_responsive"])
@pytest.mark.parametrize("mark", [1, None])
async def test_the_running_vm_of_another_host_is_never_an_old_copy(
    engine: Engine, state: str, mark: int | None
) -> None:
    twice = Twice(engine)
    twice.machine.mark = mark
    vm_id = await twice.running(host_id := await engine.world.host("h1"))
    await engine.world.put("host", host_id, state=state)
    refused = await twice.refused()
    assert (refused.code, refused.context["other"]) == ("SAME_MACHINE", "h1")
    assert twice.centre.copies(vm_id) == ["h1"]
    run = await engine.world.do(runs.active_run, vm_id)
    assert run is not None
    assert run["host_id"] == host_id


async def test_a_boot_that_is_marked_far_ahead_is_left_as_it_is(engine: Engine) -> None:
    twice = Twice(engine)
    twice.machine.mark = 5
    vm_id = await twice.running(await engine.world.host("h1"))
    refused = await twice.refused()
    assert (refused.code, refused.context["found"]) == ("EPOCH_STALE", 5)
    assert twice.centre.copies(vm_id) == ["h1"]


async def test_a_new_host_destroys_nothing_in_a_boot_that_was_marked(engine: Engine) -> None:
    twice = Twice(engine)
    twice.machine.mark = 1
    vm_id = await twice.running(host_id := await engine.world.host("h1"))
    run = await engine.world.do(runs.active_run, vm_id)
    assert run is not None
    certificate = await engine.world.certificate(host_id)
    assert await engine.world.do(runs.lose, run["id"], certificate, engine.world.now)
    assert (await twice.refused()).code == "SAME_MACHINE"
    assert twice.centre.copies(vm_id) == ["h1"]


async def test_a_step_that_had_marked_the_boot_may_be_repeated(engine: Engine) -> None:
    twice = Twice(engine)
    twice.machine.mark = 1
    assert (await twice.reconcile()).kept == ()
    assert twice.machine.mark == 1


async def test_a_dead_definition_of_another_hosts_vm_still_goes(engine: Engine) -> None:
    world = engine.world
    vm_id = await world.vm()
    run = await world.running(vm_id, await world.host("h1"))
    second = await engine.ref(await world.host("second", state="reconciling"))
    left = Domain(vm_id=vm_id, name="db", state=DomainState.SHUTOFF, generation=run["generation"])
    (verdict,) = await engine.hosts.judge_copies(second, (left,))
    assert not verdict.keep
    alive = left.model_copy(update={"state": DomainState.RUNNING})
    with pytest.raises(Conflict, match="SAME_MACHINE"):
        await engine.hosts.judge_copies(second, (alive,))


async def test_a_living_copy_that_is_newer_than_its_run_elsewhere_is_not_destroyed(
    engine: Engine,
) -> None:
    """An adoption marked it, and its books were never written: it may be the VM's only copy."""
    world = engine.world
    vm_id = await world.vm()
    run = await world.running(vm_id, await world.host("h1"))
    second = await engine.ref(await world.host("second", state="reconciling"))
    newer = Domain(
        vm_id=vm_id, name="db", state=DomainState.RUNNING, generation=run["generation"] + 1
    )
    with pytest.raises(Conflict) as refused:
        await engine.hosts.judge_copies(second, (newer,))
    assert (refused.value.code, refused.value.context["other"]) == ("COPY_NEWER", "h1")
    assert "move it back there" in refused.value.next_step
    left = newer.model_copy(update={"state": DomainState.SHUTOFF})
    (verdict,) = await engine.hosts.judge_copies(second, (left,))
    assert not verdict.keep


def bmc(host_id: UUID, name: str, ip: str) -> AddFenceDevice:
    options = {"ip": ip, "username": name}
    return AddFenceDevice(host_id=host_id, name=name, agent="fence_ipmilan", options=options)


async def test_one_power_controller_is_no_second_proof_on_any_host(engine: Engine) -> None:
    first, second = await engine.world.host("h1"), await engine.world.host("h2")
    await engine.act(bmc(first, "a", "bmc.example"))
    for host_id in (first, second):
        refused = await engine.refusal(bmc(host_id, "b", "BMC.example"))
        assert (refused.code, refused.context["device"]) == ("FENCE_DEVICE_DUPLICATE", "a")
    await engine.act(bmc(second, "b", "bmc2.example"))


async def test_a_fence_device_is_not_changed_into_another_one(engine: Engine) -> None:
    host_id = await engine.world.host("h1")
    await engine.act(bmc(host_id, "a", "10.0.0.1"))
    await engine.act(bmc(host_id, "b", "10.0.0.2"))
    ids = {row["name"]: row["id"] for row in await engine.rows("fence_device")}
    change = EditFenceDevice(fence_device_id=ids["b"], options={"ip": "10.0.0.1"})
    assert (await engine.refusal(change)).code == "FENCE_DEVICE_DUPLICATE"
    await engine.act(EditFenceDevice(fence_device_id=ids["a"], options={"username": "carl"}))
