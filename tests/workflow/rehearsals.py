"""Scenarios on rehearsals: each drives a fresh bench to one end; the rehearsal's operation."""

from uuid import UUID, uuid4

from engine.actions.rehearsals import RehearseFencing
from tests.fakes import Bmc, FakeDomain, Gate
from tests.workflow.bench import Bench
from tests.workflow.scenarios import Scenario, cancel_is_known, finished


async def rehearse(bench: Bench) -> UUID:
    """Ask for h1, which is in maintenance by then."""
    await bench.ended(await bench.maintain("h1"))
    return await bench.act(RehearseFencing(host_id=bench.hosts["h1"]))


async def each_level_is_cut_and_brought_back(bench: Bench) -> UUID:
    """RehearseFencing: a controller, then the outlet that feeds the host; both are its own."""
    await bench.add_outlet("h1", "pdu-h1-1")
    return await finished(bench, await rehearse(bench))


async def an_outlet_that_feeds_another_host_is_found(bench: Bench) -> UUID:
    """RehearseFencing: the second level reads off, and its host goes on answering."""
    await bench.add_device("h1", "pdu-h1-1", level=2)
    bench.centre.hosts["h2"].outlets["pdu-h1-1"] = True
    bench.centre.wired["pdu-h1-1"] = "h2"
    return await finished(bench, await rehearse(bench))


async def a_controller_that_dies_when_it_is_told_fails_its_rehearsal(bench: Bench) -> UUID:
    """RehearseFencing: it takes no off and reads nothing; the host was never off."""

    async def die() -> None:
        bench.centre.hosts["h1"].bmc = Bmc.DEAD

    bench.centre.before["bmc_off"] = die
    return await finished(bench, await rehearse(bench))


async def a_host_that_does_not_come_back_needs_a_person(bench: Bench) -> UUID:
    """RehearseFencing: cut, switched on again, and never heard of."""

    async def unplug() -> None:
        bench.centre.hosts["h1"].reachable = False

    bench.centre.before["bmc_on"] = unplug
    return await finished(bench, await rehearse(bench))


async def a_host_with_a_guest_is_not_cut(bench: Bench) -> UUID:
    """RehearseFencing: a guest that is not the engine's runs there."""
    foreign = FakeDomain("somebodys", 64, None)
    bench.centre.run(bench.centre.hosts["h1"], uuid4(), foreign)
    return await finished(bench, await rehearse(bench))


async def a_rehearsal_is_cancelled_while_its_host_is_off(bench: Bench) -> UUID:
    """RehearseFencing: cancelled in the middle of the cut; the host is brought back."""
    gate = Gate()

    async def hold() -> None:
        if not bench.centre.hosts["h1"].powered:
            await gate()

    bench.centre.before["bmc_read"] = hold
    operation = await rehearse(bench)
    await gate.reached.wait()
    await bench.workflow(operation).cancel()
    await cancel_is_known(bench, operation)
    bench.centre.before.pop("bmc_read")
    gate.open()
    return await finished(bench, operation)


REHEARSALS: tuple[Scenario, ...] = (
    each_level_is_cut_and_brought_back,
    an_outlet_that_feeds_another_host_is_found,
    a_controller_that_dies_when_it_is_told_fails_its_rehearsal,
    a_host_that_does_not_come_back_needs_a_person,
    a_host_with_a_guest_is_not_cut,
    a_rehearsal_is_cancelled_while_its_host_is_off,
)
"""The happy path first."""
