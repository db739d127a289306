"""Lists of the inventory: filtered, sorted and cut into pages by a few statements each."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from domain.errors import Invalid, NotFound
from domain.inventory import ACTIVE_RUN_STATES, HostState, RunState, VmState
from engine.facts import vm_state
from engine.queries.events import AuditEvents
from engine.queries.incidents import ListIncidents
from engine.queries.inventory import (
    GetCluster,
    GetFenceDevice,
    GetHost,
    GetVm,
    ListClusters,
    ListFenceDevices,
    ListHosts,
    ListVms,
)
from engine.queries.operations import ListOperations
from engine.queries.pages import NamedParams, PageParams, written
from store import inventory, observations, plumbing
from store.database import Database
from store.ids import new_id
from store.rows import Row, changed
from store.schema_ha import incident, vm_run
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store

LISTS: tuple[type[PageParams], ...] = (
    *(ListClusters, ListHosts, ListVms, ListFenceDevices),
    *(ListOperations, ListIncidents, AuditEvents),
)
EACH_LIST = pytest.mark.parametrize("kind_of_list", LISTS, ids=lambda kind: kind.__name__)


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """The reading statements that reach the database inside the block."""
    seen: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            seen.append(statement)

    engine = database._engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


async def fill(engine: Engine, start: int, end: int) -> None:
    """One more of everything for each number."""
    world = engine.world
    earlier: UUID | None = None
    for number in range(start, end):
        host = await world.host(f"h{number:02}")
        await world.device(host, f"bmc{number:02}")
        depends_on = (earlier,) if earlier else ()
        earlier = await world.vm(f"vm{number:02}", memory_mib=16, depends_on=depends_on)
        await world.running(earlier, host)
        await world.incident(host)
        row: Row = {"id": new_id(), "name": f"more{number:02}", "profile": "fast"}
        row |= {"virt_type": "qemu", "created_at": world.now}
        await world.do(inventory.insert, "cluster", row)
        await event(engine, type="vm.start.accepted")


async def event(engine: Engine, **values: Any) -> UUID:
    """An event, at the world's time unless told otherwise."""
    event_id = new_id()
    row: Row = {"id": event_id, "type": "vm.start.accepted", "subject_type": "vm"}
    row |= {"subject_id": new_id(), "principal": "ann", "correlation_id": "c-1"}
    row |= {"operation_id": None, "data": {}, "at": engine.world.now}
    await engine.world.do(plumbing.append_event, row | values)
    return event_id


async def ask(engine: Engine, query: Any) -> Any:
    return await engine.backend.run_query(query)


async def names(engine: Engine, query: Any) -> list[str]:
    """The names on the only page of a list."""
    page = await ask(engine, query)
    assert page.next_cursor is None
    return [item.name for item in page.items]


async def walk(engine: Engine, query: PageParams) -> list[Any]:
    """Every item of every page."""
    found: list[Any] = []
    while True:
        page = await ask(engine, query)
        assert 0 < len(page.items) <= query.limit
        found += page.items
        if page.next_cursor is None:
            return found
        query = query.model_copy(update={"cursor": page.next_cursor})


@EACH_LIST
async def test_a_page_takes_the_same_few_statements_however_long_the_list_is(
    engine: Engine, kind_of_list: type[PageParams]
) -> None:
    counts = []
    for start, end in ((0, 2), (2, 9)):
        await fill(engine, start, end)
        with statements(engine.world.database) as seen:
            page = await ask(engine, kind_of_list(limit=8, count=True))
        assert len(page.items) >= 2
        counts.append(len(seen))
    assert counts[0] == counts[1] <= 3


@EACH_LIST
async def test_the_pages_of_a_list_together_are_the_list_in_its_order(
    engine: Engine, kind_of_list: type[PageParams]
) -> None:
    await fill(engine, 0, 5)
    whole = await ask(engine, kind_of_list(count=True))
    assert whole.next_cursor is None
    assert whole.total == len(whole.items) >= 5
    for limit in (1, 2, 5):
        assert await walk(engine, kind_of_list(limit=limit)) == list(whole.items)
    if issubclass(kind_of_list, NamedParams):
        assert [item.name for item in whole.items] == sorted(item.name for item in whole.items)


async def test_rows_that_come_and_go_meanwhile_neither_hide_nor_repeat_others(
    engine: Engine,
) -> None:
    for name in ("b", "d", "f", "h"):
        await engine.world.vm(name)
    first = await ask(engine, ListVms(limit=2))
    await engine.world.vm("a")
    await engine.world.vm("e")
    await engine.world.put("vm", first.items[1].id, removed_at=engine.world.now, name="gone")
    rest = await walk(engine, ListVms(limit=2, cursor=first.next_cursor))
    assert [item.name for item in (*first.items, *rest)] == ["b", "d", "e", "f", "h"]


@pytest.mark.parametrize("limit", [0, -1, 501])
@EACH_LIST
def test_a_page_holds_one_to_500_items(kind_of_list: type[PageParams], limit: int) -> None:
    with pytest.raises(ValidationError):
        kind_of_list(limit=limit)


NOT_CURSORS: dict[str, str] = {
    "nothing": "",
    "one-letter": "x",
    "no-letters": "!!!!",
    "no-json": "bm8",
    "no-ascii": "ü",
    "too-much": "A" * 400,
    "no-key": written(),
    "half-a-key": written("a"),
    "numbers": written(1, 2),
    "a-longer-key": written("a", new_id(), "b"),
    "nul": written("a\0", new_id()),
    "a-longer-name": written("a" * 65, new_id()),
}
NOT_TIMES = ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-01T00:00:00", "a")


@pytest.mark.parametrize("cursor", NOT_CURSORS.values(), ids=NOT_CURSORS)
@EACH_LIST
async def test_a_cursor_that_no_page_gave_is_refused(
    engine: Engine, kind_of_list: type[PageParams], cursor: str
) -> None:
    with pytest.raises(Invalid, match="CURSOR_INVALID"):
        await ask(engine, kind_of_list(cursor=cursor))


@pytest.mark.parametrize("time", NOT_TIMES)
async def test_a_cursor_of_events_with_no_usable_time_is_refused(engine: Engine, time: str) -> None:
    with pytest.raises(Invalid, match="CURSOR_INVALID"):
        await ask(engine, AuditEvents(cursor=written(time, new_id())))
    with pytest.raises(ValidationError):
        AuditEvents.model_validate({"since": time})


async def test_every_state_of_a_vm_is_found_by_the_same_rule_that_shows_it(engine: Engine) -> None:
    world = engine.world
    expected = {await world.vm("none"): VmState.DOWN}
    for on in HostState:
        host = await world.host(f"host-{on.value.replace('_', '-')}", memory_mib=4096)
        for state in ACTIVE_RUN_STATES:
            vm = await world.vm(f"{state.value}-on-{on.value.replace('_', '-')}")
            run = await world.placed(vm, host)
            put = vm_run.update().where(vm_run.c.id == run["id"]).values(state=state.value)
            if state is RunState.MIGRATING:
                put = put.values(
                    target_host_id=host,
                    target_epoch=1,
                    target_generation=2,
                    moved_by=run["operation_id"],
                )
            await world.do(changed, put)
            expected[vm] = vm_state({"state": state.value}, on.value)
        await world.put("host", host, state=on.value)
    shown = {item.id: item.state for item in await walk(engine, ListVms())}
    assert shown == expected
    for wanted in VmState:
        page = await ask(engine, ListVms(state=wanted, count=True))
        of_state = {vm for vm, state in expected.items() if state is wanted}
        assert {item.id for item in page.items} == of_state, wanted
        assert page.total == len(of_state) > 0


async def test_a_vm_that_ran_before_is_shown_once_and_down(engine: Engine) -> None:
    world = engine.world
    host, vm = await world.host(), await world.vm()
    for _ in range(2):
        run = await world.running(vm, host)
        values = {"state": "ended", "active": None, "ended_at": world.now}
        await world.do(changed, vm_run.update().where(vm_run.c.id == run["id"]).values(values))
    (view,) = (await ask(engine, ListVms(state=VmState.DOWN))).items
    assert (view.id, view.host_id, view.run_state, view.generation) == (vm, None, None, 2)


async def test_vms_are_found_by_cluster_host_protection_and_all_of_these(engine: Engine) -> None:
    world = engine.world
    row: Row = {"id": new_id(), "name": "c2", "profile": "fast", "virt_type": "qemu"}
    await world.do(inventory.insert, "cluster", row | {"created_at": world.now})
    host = await world.host()
    await world.running(await world.vm("a", protected=True), host)
    await world.running(await world.vm("b"), host)
    await world.vm("c", protected=True)
    await world.vm("d", cluster_id=row["id"])
    assert await names(engine, ListVms(cluster_id=world.cluster_id)) == ["a", "b", "c"]
    assert await names(engine, ListVms(cluster_id=row["id"])) == ["d"]
    assert await names(engine, ListVms(host_id=host)) == ["a", "b"]
    assert await names(engine, ListVms(protected=True)) == ["a", "c"]
    assert await names(engine, ListVms(protected=False)) == ["b", "d"]
    both = ListVms(host_id=host, protected=True, state=VmState.UP, name_prefix="a", count=True)
    assert await names(engine, both) == ["a"]
    assert (await ask(engine, both)).total == 1
    assert await names(engine, ListVms(host_id=new_id())) == []


async def test_parts_of_names_are_taken_as_they_are_written(engine: Engine) -> None:
    for name in ("web-1", "web-10", "web.2", "my-web", "WEB-3", "100%", "100x"):
        await engine.world.vm(name)
    assert await names(engine, ListVms(name="web-1")) == ["web-1"]
    assert await names(engine, ListVms(name_prefix="web")) == ["web-1", "web-10", "web.2"]
    assert await names(engine, ListVms(name_contains="web-1")) == ["web-1", "web-10"]
    assert await names(engine, ListVms(name_contains="-web")) == ["my-web"]
    assert await names(engine, ListVms(name_prefix="w_b")) == []
    assert await names(engine, ListVms(name_contains="%")) == ["100%"]
    assert await names(engine, ListVms(name_prefix="100%")) == ["100%"]
    assert len((await ask(engine, ListVms(name_prefix="", name_contains=""))).items) == 7


async def test_hosts_come_with_their_vms_last_answer_and_open_incident(engine: Engine) -> None:
    world = engine.world
    busy, idle = await world.host("busy"), await world.host("idle", state="down")
    for name in ("a", "b"):
        await world.running(await world.vm(name), busy)
    await world.monitor()
    await world.observe(busy)
    heard = world.now
    other: Row = {"host_id": busy, "verdict": "silent", "silent_s": 3.0, "misses": 1}
    other |= {"others_seen": 1, "last_answer_at": None}
    rows = {
        "observations": [other],
        "samples": [],
        "watched_ms": int,
        "warm": True,
        "now": world.later(5),
    }
    await world.do(observations.record_round, "m2", 1, **rows)
    incident = await world.incident(busy)
    one, two = (await ask(engine, ListHosts())).items
    assert (one.id, one.vms, one.last_answer_at, one.open_incident_id) == (busy, 2, heard, incident)
    assert (two.id, two.vms, two.last_answer_at, two.open_incident_id) == (idle, 0, None, None)
    await world.put("host", busy, epoch=2)
    assert (await ask(engine, GetHost(host_id=busy))).open_incident_id is None
    assert await names(engine, ListHosts(state=HostState.DOWN)) == ["idle"]
    assert await names(engine, ListHosts(cluster_id=world.cluster_id)) == ["busy", "idle"]
    assert await names(engine, ListHosts(cluster_id=new_id())) == []


@pytest.mark.parametrize(
    ("question", "code"),
    [
        (GetCluster(cluster_id=new_id()), "CLUSTER_NOT_FOUND"),
        (GetHost(host_id=new_id()), "HOST_NOT_FOUND"),
        (GetVm(vm_id=new_id()), "VM_NOT_FOUND"),
        (GetFenceDevice(device_id=new_id()), "FENCE_DEVICE_NOT_FOUND"),
    ],
    ids=["cluster", "host", "vm", "fence-device"],
)
async def test_one_object_that_is_not_there_is_refused(
    engine: Engine, question: Any, code: str
) -> None:
    with pytest.raises(NotFound) as refused:
        await ask(engine, question)
    assert refused.value.code == code


async def test_one_object_looks_as_it_does_in_its_list(engine: Engine) -> None:
    await fill(engine, 0, 2)
    pairs = (
        (ListClusters, lambda i: GetCluster(cluster_id=i)),
        (ListHosts, lambda i: GetHost(host_id=i)),
        (ListVms, lambda i: GetVm(vm_id=i)),
        (ListFenceDevices, lambda i: GetFenceDevice(device_id=i)),
    )
    for many_of, one in pairs:
        for item in (await ask(engine, many_of())).items:
            assert await ask(engine, one(item.id)) == item


async def test_incidents_are_found_by_host_and_by_whether_they_are_open(engine: Engine) -> None:
    world = engine.world
    a, b = await world.host("a"), await world.host("b")
    old, new = await world.incident(a), await world.incident(b)
    await world.do(changed, incident.update().where(incident.c.id == old).values(open=None))

    async def ids(**filters: Any) -> list[UUID]:
        return [item.id for item in (await ask(engine, ListIncidents(**filters))).items]

    assert await ids() == [new, old]
    assert await ids(open=True) == [new]
    assert await ids(open=False) == [old]
    assert await ids(host_id=a) == [old]
    assert await ids(host_id=a, open=True) == []


async def test_operations_are_found_by_everything_that_tells_them_apart(engine: Engine) -> None:
    world, target = engine.world, new_id()
    parent = await world.operation(target, kind="batch", state="running", principal="bob")
    child = await world.operation(parent_id=parent)
    later = world.later(60)
    last = await world.operation(state="failed")

    async def ids(**filters: Any) -> list[UUID]:
        return [item.id for item in (await ask(engine, ListOperations(**filters))).items]

    assert await ids() == [last, child, parent]
    assert await ids(kind="batch") == [parent]
    assert await ids(state="failed") == [last]
    assert await ids(target_id=target) == [parent]
    assert await ids(parent_id=parent) == [child]
    assert await ids(principal="bob") == [parent]
    assert await ids(since=later) == [last]
    assert await ids(until=later) == [child, parent]
    assert await ids(since=later, until=later) == []


async def test_the_total_is_that_of_the_list_for_every_set_of_filters(engine: Engine) -> None:
    world = engine.world
    hosts = [await world.host("a"), await world.host("b", state="up")]
    for number, host in enumerate((*hosts, None) * 3):
        vm = await world.vm(f"vm{number}", protected=number % 2 == 0)
        if host is not None:
            await world.running(vm, host)
    await world.put("host", hosts[1], state="non_responsive")
    gone = await world.vm("gone")
    await world.put("vm", gone, removed_at=world.now, name="gone~1")
    totals = set()
    for state in (None, *VmState):
        for host_id in (None, *hosts):
            for protected in (None, True):
                for name_contains in (None, "vm1", "vm"):
                    query = ListVms(
                        state=state,
                        host_id=host_id,
                        protected=protected,
                        name_contains=name_contains,
                        count=True,
                    )
                    page = await ask(engine, query)
                    assert page.total == len(page.items), query
                    totals.add(page.total)
    assert {0, 1, 2, 3, 9} <= totals
