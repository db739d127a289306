"""Any wish about a VM is either refused as a whole or done as a whole, whatever it is made of."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import Refused
from engine.actions.base import Params
from engine.actions.vm_config import CreateVm, EditVm
from store import inventory, operations, vms
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine

pytestmark = [pytest.mark.store, pytest.mark.parametrize("kind", ["sqlite-memory"], indirect=True)]

IN_ONE_DATABASE = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

MACS = st.sampled_from([f"52:54:00:00:00:{number:02x}" for number in range(4)])
CARDS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"mac": MACS, "model": st.sampled_from(["virtio", "e1000"])}
    ),
    max_size=5,
)
EDITS = st.fixed_dictionaries(
    {},
    optional={
        "memory_mib": st.integers(16, 64),
        "vcpus": st.integers(1, 3),
        "protected": st.booleans(),
        "priority": st.integers(0, 2),
        "budget_s": st.none() | st.integers(1, 3),
        "disks": st.lists(st.builds(lambda n: {"path": f"/d/{n}"}, st.integers(0, 2)), max_size=2),
        "boot": st.none() | st.just({"kernel": "/boot/k"}),
        "nics": CARDS,
    },
)


async def network(engine: Engine) -> UUID:
    row: Row = {"id": new_id(), "cluster_id": engine.world.cluster_id, "name": "lan"}
    row |= {"bridge": None, "created_at": engine.world.now}
    if (known := await engine.world.do(inventory.find, "network", "lan")) is not None:
        row = known
    else:
        await engine.world.do(inventory.insert, "network", row)
    network_id: UUID = row["id"]
    return network_id


async def fresh_vm(engine: Engine) -> UUID:
    """A VM of a name of its own; those of earlier examples are still there."""
    number = len(await engine.rows("vm"))
    return await engine.world.vm(f"vm{number}", memory_mib=16)


def on(lan: UUID, cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [card | {"network_id": lan} for card in cards]


async def addresses(engine: Engine, vm_id: UUID) -> list[str]:
    found = await engine.world.do(vms.nics_of, [vm_id])
    return [card["mac"] for card in found.get(vm_id, ())]


async def attempt(engine: Engine, params: Params) -> Row | None:
    """The operation of an action; None when it was refused for an address, as it may be here."""
    try:
        receipt = await engine.act(params)
    except Refused as refused:
        if refused.code not in ("MAC_TWICE", "MAC_TAKEN"):
            raise
        return None
    return await engine.world.do(operations.get, receipt.operation_id)


@given(wishes=st.lists(EDITS, min_size=1, max_size=3))
@IN_ONE_DATABASE
async def test_each_change_is_written_whole_with_one_version_or_not_at_all(
    engine: Engine, wishes: list[dict[str, Any]]
) -> None:
    lan, vm = await network(engine), await fresh_vm(engine)
    for wish in wishes:
        given_cards = wish.get("nics")
        body = wish if given_cards is None else wish | {"nics": on(lan, given_cards)}
        before = await engine.world.get("vm", vm), await addresses(engine, vm)
        operation = await attempt(engine, EditVm.model_validate({"vm_id": vm} | body))
        row = await engine.world.get("vm", vm)
        if operation is None:
            assert (row, await addresses(engine, vm)) == before
            continue
        changed = operation["summary"] != "nothing to change"
        assert row["version"] == before[0]["version"] + changed
        for name in wish.keys() & {"memory_mib", "vcpus", "protected", "priority", "budget_s"}:
            assert row[name] == wish[name]
        if "disks" in wish:
            assert [disk["path"] for disk in row["spec"]["disks"]] == [
                disk["path"] for disk in wish["disks"]
            ]


@given(cards=CARDS, later=CARDS)
@IN_ONE_DATABASE
async def test_no_two_cards_ever_have_one_address_and_a_kept_card_keeps_its_own(
    engine: Engine, cards: list[dict[str, Any]], later: list[dict[str, Any]]
) -> None:
    lan = await network(engine)
    body = {"cluster_id": engine.world.cluster_id, "memory_mib": 16, "nics": on(lan, cards)}
    number = len(await engine.rows("vm"))
    made = await attempt(engine, CreateVm.model_validate(body | {"name": f"new{number}"}))
    if made is not None:
        vm = made["target_id"]
        first = await addresses(engine, vm)
        edit = EditVm.model_validate({"vm_id": vm, "nics": on(lan, later)})
        if await attempt(engine, edit) is not None:
            named = {card["mac"] for card in later if "mac" in card}
            for card, mac, old in zip(later, await addresses(engine, vm), first, strict=False):
                assert mac == card.get("mac", mac if old in named else old)
    everywhere = [row["mac"] for row in await engine.rows("vm_nic")]
    assert len(everywhere) == len(set(everywhere))
