"""Scenarios on soft steps: a libvirtd that hangs is restarted over SSH."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from domain.readings import Knock
from domain.soft_step import Hung
from engine.actions.soft_steps import RestartLibvirtd
from simulator.world.daemon import Daemon
from simulator.world.host import Libvirtd
from store import soft_steps
from store.rows import inserted
from store.schema_ha import host_sample
from tests.fakes import Gate, Sshd
from tests.store.scenes import HOST_KEY
from tests.workflow.bench import MONITOR, Bench
from tests.workflow.scenarios import cancel_is_known, finished
from tests.workflow.watcher import now

SoftScenario = Callable[[Bench], Awaitable[UUID]]
SILENT_S = 5.0


async def a_hung_libvirtd_is_restarted(bench: Bench) -> UUID:
    """RestartLibvirtd: a monitor reports it, and it answers again with its guests."""
    await hangs(bench)
    return await finished(bench, await report(bench))


async def a_libvirtd_is_restarted_for_a_person(bench: Bench) -> UUID:
    """RestartLibvirtd: of a host that answers, as after a change of its configuration."""
    await reachable(bench)
    return await finished(bench, await bench.act(RestartLibvirtd(host_id=bench.hosts["h1"])))


async def a_libvirtd_whose_restart_fails_is_left_alone(bench: Bench) -> UUID:
    """RestartLibvirtd: the command fails on the host."""
    await hangs(bench)
    bench.centre.hosts["h1"].sshd = Sshd.FAILING
    return await finished(bench, await report(bench))


async def a_libvirtd_that_answers_again_by_itself_is_not_restarted(bench: Bench) -> UUID:
    """RestartLibvirtd: it goes on between the claim and the restart."""
    await hangs(bench)
    gate = bench.centre.before["open"] = Gate()
    operation = await report(bench)
    await gate.reached.wait()
    bench.centre.hosts["h1"].set_libvirtd(Libvirtd.ALIVE)
    gate.open()
    return await finished(bench, operation)


async def a_guest_that_is_missing_after_the_restart_is_told(bench: Bench) -> UUID:
    """RestartLibvirtd: libvirt answers again, and one guest that was alive is not there."""
    await hangs(bench)
    host = bench.centre.hosts["h1"]

    async def ends() -> None:
        host.end(bench.vms["db"], "crashed while nobody looked")

    bench.centre.before["ssh_restart"] = ends
    return await finished(bench, await report(bench))


async def a_restart_is_cancelled_while_it_is_under_way(bench: Bench) -> UUID:
    """RestartLibvirtd: cancelled while the command runs, which is not taken back."""
    await hangs(bench)
    gate = bench.centre.before["ssh_restart"] = Gate()
    operation = await report(bench)
    await gate.reached.wait()
    await bench.workflow(operation).cancel()
    await cancel_is_known(bench, operation)
    gate.open()
    return await finished(bench, operation)


async def reachable(bench: Bench) -> None:
    """Two guests run on h1, a monitor has seen them, and the engine has SSH access to it."""
    for name in ("db", "web"):
        await bench.add_vm(name, "h1")
    row = {"host_id": bench.hosts["h1"], "user": "holdfast", "port": 22, "host_key": HOST_KEY}
    whole = row | {"secrets": b"", "created_at": now()}
    await bench.write(lambda c: soft_steps.give_access(c, whole))
    reading = Daemon(bench.centre, bench.centre.hosts["h1"]).reading()
    seen = reading.model_dump(mode="json", include={"guests"})["guests"]
    sample = {"host_id": bench.hosts["h1"], "at": now(), "took_s": 0.1, "guests": seen}
    await bench.write(lambda c: inserted(c, host_sample, sample))


async def hangs(bench: Bench) -> None:
    """… and its libvirtd hangs."""
    await reachable(bench)
    bench.centre.hosts["h1"].frozen = True
    await bench.watcher.missed("h1")

    async def unheard() -> bool:
        hearing = await bench.database.read(lambda c: soft_steps.hearing(c, bench.hosts["h1"]))
        return hearing == []

    await bench.until(unheard, "m1 still hears it")


async def report(bench: Bench) -> UUID:
    """What a monitor asks for when it has found that out."""
    hung = Hung(epoch=1, silent_s=SILENT_S, door=Knock.OPEN, reported_by="m1")
    return await bench.act(RestartLibvirtd(host_id=bench.hosts["h1"], hung=hung), MONITOR)


SOFT_STEPS: tuple[SoftScenario, ...] = (
    a_hung_libvirtd_is_restarted,
    a_libvirtd_is_restarted_for_a_person,
    a_libvirtd_whose_restart_fails_is_left_alone,
    a_libvirtd_that_answers_again_by_itself_is_not_restarted,
    a_guest_that_is_missing_after_the_restart_is_told,
    a_restart_is_cancelled_while_it_is_under_way,
)
"""The happy path stands first."""
