"""Scenarios of failures of hosts; see `scenarios` for how they are used.

`h1` is the one that fails. Four VMs stand on it: two protected, one that depends on another, and
one that nobody protects.
"""

from collections.abc import Awaitable
from uuid import UUID

from domain.disarming import DisarmMode
from domain.make_room import MakeRoom
from domain.readiness import ReadyRule, ReadyWhen
from engine.actions.clusters import EditCluster
from engine.actions.confirmations import ConfirmHostDead
from engine.actions.vm_config import EditVm
from engine.records.recovery import RecoveryRecords
from store import soft_steps
from store.rows import Row
from tests.fakes import Bmc, Gate
from tests.workflow.bench import Bench
from tests.workflow.held_records import held
from tests.workflow.scenarios import Scenario, cancel_is_known, finished


async def guests(bench: Bench) -> None:
    """What stands on the host that is to fail."""
    await bench.add_vm("db", "h1", priority=90)
    await bench.add_vm("mail", "h1", priority=80)
    await bench.add_vm("web", "h1", after=("db",))
    await bench.add_vm("batch", "h1", protected=False)


async def an_isolated_host_is_fenced(bench: Bench) -> UUID:
    """RecoverHost: silent, on; cut, read back, certified, its VMs started elsewhere."""
    await guests(bench)
    bench.centre.hosts["h1"].reachable = False
    return await finished(bench, await bench.report("h1"))


async def a_power_cut_needs_no_fence(bench: Bench) -> UUID:
    """RecoverHost: its power reads off already, which is proof enough."""
    await guests(bench)
    bench.centre.hosts["h1"].lose_power()
    return await finished(bench, await bench.report("h1"))


def _before_the_next_look(bench: Bench) -> Gate:
    """A recovery that waits judges anew once this is open: judging begins with a reading."""
    gate = Gate()

    async def hold() -> None:
        rows = await bench.rows("operation")
        if any(row["kind"] == "host.recover" and row["state"] == "waiting" for row in rows):
            await gate()

    bench.centre.before["bmc_read"] = hold
    return gate


async def a_host_answers_again_before_the_proof(bench: Bench) -> UUID:
    """RecoverHost: held by a silent controller, then heard again; nothing is moved."""
    await guests(bench)
    h1 = bench.centre.hosts["h1"]
    h1.reachable, h1.bmc = False, Bmc.DEAD
    gate = _before_the_next_look(bench)
    operation = await bench.report("h1")
    await bench.waits(operation, "BMC_NO_ANSWER")
    h1.reachable = True

    async def heard() -> bool:
        host_id = bench.hosts["h1"]
        return bool(await bench.database.read(lambda c: soft_steps.hearing(c, host_id)))

    await bench.until(heard, "no monitor heard it again")
    gate.open()
    return await finished(bench, operation)


async def a_silent_controller_holds_until_it_answers(bench: Bench) -> UUID:
    """RecoverHost: the first fence is not proven, a later one is."""
    await guests(bench)
    h1 = bench.centre.hosts["h1"]
    h1.reachable, h1.bmc = False, Bmc.DEAD
    operation = await bench.report("h1")
    await bench.waits(operation, "BMC_NO_ANSWER")
    h1.bmc = Bmc.OK
    await bench.workflow(operation).signal("look_again")
    return await finished(bench, operation)


async def a_disarmed_cluster_holds_until_it_is_armed(bench: Bench) -> UUID:
    """RecoverHost: held by the guard, judged anew, carried out."""
    await guests(bench)
    await bench.arm(False)
    bench.centre.hosts["h1"].reachable = False
    operation = await bench.report("h1")
    await bench.waits(operation, "DISARMED")
    await bench.arm(True)
    return await finished(bench, operation)


async def a_frozen_recovery_starts_its_vms_once_armed(bench: Bench) -> UUID:
    """RecoverHost and StartVm: frozen once its VMs have a place; they start when it is armed."""
    await guests(bench)
    gate = bench.centre.before["define"] = Gate()
    bench.centre.hosts["h1"].lose_power()
    operation = await bench.report("h1")
    await gate.reached.wait()
    await bench.arm(False, mode=DisarmMode.FREEZE)
    gate.open()
    for child in await bench.children_of(operation, "vm.start"):
        if child["target_name"] in ("db", "mail"):
            await bench.waits(child["id"], "DISARMED")
    await bench.arm(True)
    return await finished(bench, operation)


async def a_dependant_starts_once_its_vm_is_ready(bench: Bench) -> UUID:
    """RecoverHost: `web` waits for the guest agent of `db`, which answers late."""
    await guests(bench)
    rule = ReadyRule(when=ReadyWhen.AGENT)
    await bench.act(EditVm(vm_id=bench.vms["db"], ready=rule))
    bench.centre.not_ready.add(bench.vms["db"])
    asked = bench.centre.before["agent_ping"] = Gate()
    bench.centre.hosts["h1"].lose_power()
    operation = await bench.report("h1")
    await asked.reached.wait()
    asked.open()
    bench.centre.not_ready.clear()
    return await finished(bench, operation)


async def nine_vms_take_turns_on_the_one_host_that_is_left(bench: Bench) -> UUID:
    """RecoverHost: eight start at once, and the ninth once one of them runs."""
    for n in range(1, 10):
        await bench.add_vm(f"vm{n}", "h1", memory_mib=64, priority=100 - n)
    await finished(bench, await bench.maintain("h3"))
    bench.centre.hosts["h1"].lose_power()
    return await finished(bench, await bench.report("h1"))


async def a_less_important_vm_makes_room(bench: Bench) -> UUID:
    """StartVm of a recovery: it waits until another VM was stopped for it, and takes its room."""
    await finished(bench, await bench.maintain("h3"))
    await bench.act(EditCluster(cluster_id=bench.cluster_id, make_room=MakeRoom.SHUTDOWN))
    await bench.add_vm("db", "h1", memory_mib=600, priority=90)
    await bench.add_vm("batch", "h2", memory_mib=500, priority=10, protected=False)
    await bench.add_vm("web", "h2", memory_mib=300, priority=95)
    bench.centre.hosts["h1"].lose_power()
    return await finished(bench, await bench.report("h1"))


async def a_restart_that_fails_makes_the_recovery_fail(bench: Bench) -> UUID:
    """RecoverHost: one VM is refused everywhere, the others run again."""
    await guests(bench)
    bench.centre.refusing[bench.vms["mail"]] = 1000
    bench.centre.hosts["h1"].lose_power()
    return await finished(bench, await bench.report("h1"))


async def a_restart_that_is_refused_is_tried_elsewhere_and_again(bench: Bench) -> UUID:
    """RecoverHost: one VM is refused by both hosts, and then taken."""
    await guests(bench)
    bench.centre.refusing[bench.vms["mail"]] = 2
    bench.centre.hosts["h1"].lose_power()
    return await finished(bench, await bench.report("h1"))


async def a_held_recovery_is_cancelled(bench: Bench) -> UUID:
    """RecoverHost: cancelled while it waits; the host and its VMs are left as they are."""
    await guests(bench)
    await bench.arm(False)
    bench.centre.hosts["h1"].reachable = False
    operation = await bench.report("h1")
    await bench.waits(operation, "DISARMED")
    await bench.workflow(operation).cancel()
    return await finished(bench, operation)


async def a_recovery_is_cancelled_while_it_judges(bench: Bench) -> UUID:
    """RecoverHost: cancelled while it weighs what it has read; it ends with that judgement."""
    await guests(bench)
    await bench.arm(False)
    bench.centre.hosts["h1"].reachable = False
    async with held(bench, RecoveryRecords, "note_decision") as gate:
        operation = await bench.report("h1")
        await gate.reached.wait()
        await bench.workflow(operation).cancel()
        await cancel_is_known(bench, operation)
    return await finished(bench, operation)


async def a_recovery_is_cancelled_while_its_fence_runs(bench: Bench) -> UUID:
    """RecoverHost and FenceHost: cancelled while the power is being read back."""
    operation, fence = await _until_the_knock(bench)
    await bench.workflow(operation).cancel()
    await cancel_is_known(bench, fence)
    await _open(bench)
    return await finished(bench, operation)


async def a_fence_alone_is_cancelled(bench: Bench) -> UUID:
    """FenceHost: cancelled by itself; the recovery judges anew."""
    operation, fence = await _until_the_knock(bench)
    await bench.workflow(fence).cancel()
    await cancel_is_known(bench, fence)
    await _open(bench)
    return await finished(bench, operation)


async def a_host_that_answers_though_it_reads_off_is_no_dead_host(bench: Bench) -> UUID:
    """FenceHost: refused by a sign of life; RecoverHost: cancelled while it waits."""
    await guests(bench)
    h1 = bench.centre.hosts["h1"]
    h1.bmc = Bmc.LYING
    bench.watcher.blind.add("h1")
    operation = await bench.report("h1")
    await bench.waits(operation, "SIGN_OF_LIFE")
    await bench.workflow(operation).cancel()
    return await finished(bench, operation)


async def the_fence_of(bench: Bench, recovery: Awaitable[UUID]) -> UUID:
    """The first fence that a recovery opened."""
    return UUID(str((await bench.children_of(await recovery, "host.fence"))[0]["id"]))


async def _until_the_knock(bench: Bench) -> tuple[UUID, UUID]:
    await guests(bench)
    bench.centre.hosts["h1"].reachable = False
    gate = bench.centre.before["knock"] = Gate()
    operation = await bench.report("h1")
    await gate.reached.wait()
    fence = (await bench.children_of(operation, "host.fence"))[0]
    return operation, fence["id"]


async def _open(bench: Bench) -> None:
    gate = bench.centre.before.pop("knock")
    assert isinstance(gate, Gate)
    gate.open()


async def a_person_confirms_what_no_controller_tells(bench: Bench) -> UUID:
    """RecoverHost: held by a dead controller, confirmed by a person, its VMs started elsewhere."""
    await guests(bench)
    h1 = bench.centre.hosts["h1"]
    h1.lose_power()
    h1.bmc = Bmc.DEAD
    gate = _before_the_next_look(bench)
    operation = await bench.report("h1")
    await bench.waits(operation, "BMC_NO_ANSWER")
    await bench.act(ConfirmHostDead(host_id=bench.hosts["h1"], reason="I pulled its cords"))
    gate.open()
    return await finished(bench, operation)


async def a_dead_controller_leads_to_the_outlets(bench: Bench) -> UUID:
    """FenceHost: level 1 is dead and proves nothing, level 2 is cut and does."""
    await guests(bench)
    for name in ("pdu-h1-1", "pdu-h1-2"):
        await bench.add_outlet("h1", name)
    h1 = bench.centre.hosts["h1"]
    h1.reachable, h1.bmc = False, Bmc.DEAD
    return await finished(bench, await bench.report("h1"))


async def the_outlets_are_cut_after_the_controller_has_read_off(bench: Bench) -> UUID:
    """FenceHost: level 1 reads off against outlets that read on, so level 2 is cut, too."""
    await guests(bench)
    for name in ("pdu-h1-1", "pdu-h1-2"):
        await bench.add_outlet("h1", name)
    bench.centre.hosts["h1"].reachable = False
    return await finished(bench, await bench.report("h1"))


async def a_rack_loses_its_power(bench: Bench) -> None:
    """`db` was on h1, and `app`, which depends on it, on h2."""
    await bench.add_host("h4")
    await bench.add_vm("db", "h1")
    await bench.add_vm("app", "h2", after=("db",))
    for name in ("h1", "h2"):
        bench.centre.hosts[name].lose_power()
    await bench.watcher.missed("h1")


async def until_it_waits_for_another(bench: Bench, recovery: UUID) -> Row:
    """The one start of a recovery, once it waits for a VM of another one."""

    async def waits() -> bool:
        found = await bench.children_of(recovery, "vm.start")
        return [row["reason_code"] for row in found] == ["DEPENDENCY"]

    await bench.until(waits, "it never waited for a VM of another recovery")
    (start,) = await bench.children_of(recovery, "vm.start")
    return start


async def a_vm_waits_for_one_that_another_recovery_brings_back(bench: Bench) -> UUID:
    """RecoverHost: two hosts lose their power; `app` starts once `db`, of the other one, runs."""
    await a_rack_loses_its_power(bench)
    recovery = await bench.report("h2")
    await until_it_waits_for_another(bench, recovery)
    await finished(bench, await bench.report("h1"))
    return await finished(bench, recovery)


RECOVERIES: tuple[Scenario, ...] = (
    an_isolated_host_is_fenced,
    a_power_cut_needs_no_fence,
    a_host_answers_again_before_the_proof,
    a_silent_controller_holds_until_it_answers,
    a_disarmed_cluster_holds_until_it_is_armed,
    a_frozen_recovery_starts_its_vms_once_armed,
    a_dependant_starts_once_its_vm_is_ready,
    a_vm_waits_for_one_that_another_recovery_brings_back,
    nine_vms_take_turns_on_the_one_host_that_is_left,
    a_less_important_vm_makes_room,
    a_restart_that_fails_makes_the_recovery_fail,
    a_restart_that_is_refused_is_tried_elsewhere_and_again,
    a_held_recovery_is_cancelled,
    a_recovery_is_cancelled_while_it_judges,
    a_recovery_is_cancelled_while_its_fence_runs,
    a_person_confirms_what_no_controller_tells,
)
FENCES: tuple[Scenario, ...] = (
    an_isolated_host_is_fenced,
    a_power_cut_needs_no_fence,
    a_silent_controller_holds_until_it_answers,
    a_fence_alone_is_cancelled,
    a_host_that_answers_though_it_reads_off_is_no_dead_host,
    a_dead_controller_leads_to_the_outlets,
    the_outlets_are_cut_after_the_controller_has_read_off,
)
