"""Taking a foreign guest over: rows, then mark; killed anywhere, repeated, and undone."""

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest

from activities.imports import AdoptOrder, RecordOrder
from domain.errors import Conflict, EngineError, Invalid, NoAnswer, NotFound
from domain.readings import DomainState
from tests.fakes import lost_answer
from tests.import_scene import Scene

pytestmark = pytest.mark.unit


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    yield made
    assert made.centre.copies_max[made.guest_id] == 1, "an import never starts anything"


async def test_a_running_guest_becomes_a_vm_with_a_run_and_runs_on(scene: Scene) -> None:
    assert await scene.run() == "running on h1, now ours"
    run = scene.rows.runs[scene.guest_id]
    assert run is not None
    assert (run.spec.vm_id, run.generation) == (scene.guest_id, 1)
    assert (scene.domain.generation, scene.domain.running) == (1, 1)
    assert scene.centre.copies(scene.guest_id) == ["h1"]


async def test_a_guest_that_is_down_becomes_a_vm_without_a_run() -> None:
    scene = Scene(running=False)
    assert await scene.run() == "down on h1, now ours"
    assert scene.rows.runs == {scene.guest_id: None}
    assert (scene.domain.generation, scene.domain.state) == (1, DomainState.SHUTOFF)


async def test_every_step_may_be_repeated_and_gives_the_same(scene: Scene) -> None:
    guest = await scene.imports.read(scene.step)
    order = RecordOrder(step=scene.step, guest=guest)
    first = await scene.imports.record(order)
    assert await scene.imports.record(order) == first
    adopt = AdoptOrder(step=scene.step, running=True)
    assert await scene.imports.adopt(adopt) == await scene.imports.adopt(adopt)
    assert (await scene.imports.read(scene.step)).claim == scene.step.operation_id
    for _ in range(2):
        assert await scene.imports.withdraw(scene.step) == "left on h1 as it was found"
        assert scene.foreign_as_found()


@pytest.mark.parametrize("call", ["open", "describe_foreign", "adopt", "lookup"])
async def test_an_import_that_was_cut_off_anywhere_ends_well_when_it_is_repeated(
    scene: Scene, call: str
) -> None:
    def cut_off() -> None:
        raise lost_answer("h1")

    scene.hook(call, cut_off)
    with pytest.raises(EngineError, match="ANSWER_LOST"):
        await scene.run()
    assert await scene.run() == "running on h1, now ours"
    assert (scene.domain.generation, scene.domain.claim) == (1, scene.step.operation_id)


async def _read_only(scene: Scene) -> None:
    await scene.imports.read(scene.step)


async def _recorded(scene: Scene) -> None:
    guest = await scene.imports.read(scene.step)
    await scene.imports.record(RecordOrder(step=scene.step, guest=guest))


async def _marked(scene: Scene) -> None:
    await scene.run()


@pytest.mark.parametrize("so_far", [_read_only, _recorded, _marked])
async def test_undoing_from_anywhere_leaves_the_guest_as_it_was_found(
    scene: Scene, so_far: Callable[[Scene], Awaitable[None]]
) -> None:
    await so_far(scene)
    await scene.imports.withdraw(scene.step)
    assert scene.foreign_as_found()
    assert await scene.run(scene.another()) == "running on h1, now ours"


async def test_a_guest_that_ends_before_it_is_marked_is_refused_and_can_be_undone(
    scene: Scene,
) -> None:
    def ends() -> None:
        scene.domain.state, scene.domain.running = DomainState.SHUTOFF, None

    scene.hook("adopt", ends)
    with pytest.raises(Conflict) as changed:
        await scene.run()
    assert changed.value.code == "GUEST_CHANGED"
    await scene.imports.withdraw(scene.step)
    assert (scene.domain.generation, scene.rows.owner) == (None, {})


async def test_a_guest_that_starts_before_it_is_marked_is_refused() -> None:
    scene = Scene(running=False)
    scene.hook("adopt", lambda: scene.centre.run(scene.host, scene.guest_id, scene.domain))
    with pytest.raises(Conflict, match="was down when it was recorded and is running"):
        await scene.run()


async def test_a_late_adopt_marks_nothing_once_the_rows_were_taken_back(scene: Scene) -> None:
    await _recorded(scene)
    await scene.imports.withdraw(scene.step)
    with pytest.raises(Conflict, match="IMPORT_WITHDRAWN"):
        await scene.imports.adopt(AdoptOrder(step=scene.step, running=True))
    assert scene.foreign_as_found()


async def test_a_vm_that_a_recovery_follows_by_now_keeps_rows_and_mark(scene: Scene) -> None:
    await scene.run()
    scene.rows.followed.add(scene.guest_id)
    assert await scene.imports.withdraw(scene.step) == "left to its new owner"
    assert (scene.domain.generation, scene.domain.claim) == (1, scene.step.operation_id)


async def test_the_mark_of_another_import_is_neither_taken_over_nor_removed(scene: Scene) -> None:
    await scene.run()
    other = scene.another()
    with pytest.raises(Conflict) as claimed:
        await scene.imports.read(other)
    assert claimed.value.code == "GUEST_CLAIMED"
    assert str(scene.step.operation_id) in claimed.value.detail
    await scene.imports.withdraw(other)
    assert scene.domain.claim == scene.step.operation_id


async def test_a_guest_that_another_engine_started_is_not_taken_over(scene: Scene) -> None:
    scene.domain.generation = scene.domain.running = 7
    with pytest.raises(Conflict, match="generation 7 of another engine"):
        await scene.run()
    assert scene.rows.owner == {}


async def test_what_cannot_be_defined_elsewhere_is_named_and_left_alone(scene: Scene) -> None:
    scene.domain.unsupported = ("hostdev", "snapshots (3)")
    with pytest.raises(Conflict) as refused:
        await scene.run()
    assert refused.value.code == "GUEST_NOT_SUPPORTED"
    assert "2 things" in refused.value.detail
    assert "hostdev; snapshots (3)" in refused.value.detail
    assert scene.foreign_as_found()


async def test_a_guest_that_its_host_starts_at_boot_is_refused_whenever_that_is_seen(
    scene: Scene,
) -> None:
    def set_autostart() -> None:
        scene.domain.autostart = True

    scene.hook("adopt", set_autostart)
    for _ in range(2):  # Seen by the mark first, then by the look before it.
        with pytest.raises(Conflict) as refused:
            await scene.run()
        assert refused.value.code == "GUEST_AUTOSTART"
        assert scene.domain.generation is None


async def test_a_name_that_no_vm_may_have_needs_another_one(scene: Scene) -> None:
    scene.domain.name = "My Database"
    with pytest.raises(Invalid, match="VM_NAME_UNFIT"):
        await scene.run()
    named = scene.step.model_copy(update={"name": "my-database"})
    assert await scene.run(named) == "running on h1, now ours"


async def test_a_guest_that_has_gone_and_a_host_that_is_silent_are_told_apart(
    scene: Scene,
) -> None:
    with pytest.raises(NotFound, match="GUEST_NOT_FOUND"):
        await scene.imports.read(scene.step.model_copy(update={"guest_id": uuid4()}))
    scene.host.reachable = False
    with pytest.raises(NoAnswer):
        await scene.imports.read(scene.step)
