"""Scenarios of imports: each drives a fresh bench to one end and gives the operation to look at."""

from uuid import UUID

from engine.actions.imports import ImportVm
from tests.fakes import Gate
from tests.workflow.bench import Bench
from tests.workflow.scenarios import Scenario, finished


async def begin(bench: Bench, guest: UUID) -> UUID:
    """Ask for the import of a guest of the first host; the operation."""
    wish = ImportVm(host_id=bench.hosts["h1"], guest_id=guest, name="old", protected=True)
    return await bench.act(wish)


async def a_guest_is_imported(bench: Bench) -> UUID:
    """ImportVm: read, recorded, marked, while it runs."""
    guest = bench.centre.add_foreign(bench.centre.hosts["h1"], "old")
    bench.vms["old"] = guest
    return await finished(bench, await begin(bench, guest))


async def a_guest_that_could_not_run_elsewhere_is_left_alone(bench: Bench) -> UUID:
    """ImportVm: refused when it is read; nothing was written."""
    h1 = bench.centre.hosts["h1"]
    guest = bench.centre.add_foreign(h1, "old")
    h1.domains[guest].unsupported = ("hostdev",)
    return await finished(bench, await begin(bench, guest))


async def a_guest_that_cannot_be_marked_is_given_back(bench: Bench) -> UUID:
    """ImportVm: recorded, then its host starts it by itself at boot; the rows are taken back."""
    h1 = bench.centre.hosts["h1"]
    guest = bench.centre.add_foreign(h1, "old")
    gate = bench.centre.before["adopt"] = Gate()
    operation = await begin(bench, guest)
    await gate.reached.wait()
    h1.domains[guest].autostart = True
    gate.open()
    return await finished(bench, operation)


async def an_import_is_cancelled_while_it_marks(bench: Bench) -> UUID:
    """ImportVm: cancelled under way, the step giving up; rows and mark are taken back."""
    guest = bench.centre.add_foreign(bench.centre.hosts["h1"], "old")
    gate = bench.centre.before["adopt"] = Gate()
    operation = await begin(bench, guest)
    await gate.reached.wait()
    await bench.workflow(operation).cancel()
    return await finished(bench, operation)


IMPORTS: tuple[Scenario, ...] = (
    a_guest_is_imported,
    a_guest_that_could_not_run_elsewhere_is_left_alone,
    a_guest_that_cannot_be_marked_is_given_back,
    an_import_is_cancelled_while_it_marks,
)
"""The happy path stands first."""
