"""Whether a copy of a VM on a host where it should not run may be ended, or become its run."""

from typing import Any
from uuid import UUID

import pytest

from domain.readings import Domain, DomainState
from domain.stray_copies import CopyFacts, refuse_adoption, refuse_copy

pytestmark = pytest.mark.unit


def domain(generation: int | None, state: DomainState = DomainState.RUNNING) -> Domain:
    """What a host has of the VM."""
    return Domain(vm_id=UUID(int=1), name="db", state=state, generation=generation)


def facts(**changes: Any) -> CopyFacts:
    """`db` should run on h1 in generation 3, does so, and runs on h2 as well."""
    known: dict[str, Any] = {"vm": "db", "host": "h2", "there": domain(2), "newest": 3}
    known |= {"own_host": "h1", "own": domain(3), "run_generation": 3}
    return CopyFacts(**known | changes)


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_copy_beside_the_one_that_the_books_know_is_ended(generation: int) -> None:
    assert refuse_copy(facts(there=domain(generation))) is None


GONE, OFF, OTHER = None, domain(3, DomainState.SHUTOFF), domain(2)


@pytest.mark.parametrize("own", [GONE, OFF, OTHER], ids=["gone", "off", "another run's"])
def test_the_last_copy_is_ended_only_if_somebody_says_so(own: Domain | None) -> None:
    refused = refuse_copy(facts(own=own))
    assert refused is not None
    assert (refused.code, "--last-copy" in refused.next_step) == ("LAST_COPY", True)
    assert refuse_copy(facts(own=own, may_end_last=True)) is None


def test_a_paused_copy_may_never_go_on_so_that_the_other_may_be_the_last() -> None:
    refused = refuse_copy(facts(own=domain(3, DomainState.PAUSED)))
    assert refused is not None
    assert refused.code == "LAST_COPY"


def test_a_vm_that_should_run_nowhere_has_only_that_copy() -> None:
    nowhere = {"own_host": None, "own": None, "run_generation": None}
    refused = refuse_copy(facts(**nowhere))
    assert refused is not None
    assert refused.detail.startswith("db should run nowhere")
    assert refuse_copy(facts(**nowhere, may_end_last=True)) is None


@pytest.mark.parametrize(
    ("there", "code"),
    [(None, "COPY_NOT_FOUND"), (domain(None), "COPY_FOREIGN"), (domain(4), "COPY_NEWER")],
)
def test_no_word_of_a_person_ends_what_is_not_ours_or_newer(
    there: Domain | None, code: str
) -> None:
    refused = refuse_copy(facts(there=there, may_end_last=True))
    assert refused is not None
    assert (refused.code, bool(refused.next_step)) == (code, True)


def moved(**changes: Any) -> CopyFacts:
    """`db` should run on h1 in generation 3, has left it, and lives on h2."""
    return facts(**{"there": domain(3), "own": None} | changes)


@pytest.mark.parametrize("own", [GONE, OFF], ids=["gone", "off"])
@pytest.mark.parametrize("state", [DomainState.RUNNING, DomainState.PAUSED])
def test_the_one_copy_that_lives_becomes_the_run(own: Domain | None, state: DomainState) -> None:
    assert refuse_adoption(moved(own=own, there=domain(2, state))) is None


@pytest.mark.parametrize(
    "own",
    [
        domain(3),
        domain(3, DomainState.PAUSED),
        domain(2),
        domain(None),
        domain(3, DomainState.PAUSED).model_copy(update={"held": True}),
    ],
    ids=["runs", "paused", "another run's", "not ours", "held"],
)
def test_whatever_lives_where_it_should_run_forbids_another(own: Domain) -> None:
    refused = refuse_adoption(moved(own=own))
    assert refused is not None
    assert refused.code == "COPY_DOUBLED"
    assert "virsh destroy` on h1" in refused.next_step


HELD = domain(3, DomainState.PAUSED).model_copy(update={"held": True})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"there": None}, "COPY_NOT_FOUND"),
        ({"there": domain(None)}, "COPY_FOREIGN"),
        ({"there": domain(4)}, "COPY_NEWER"),
        ({"there": domain(3, DomainState.SHUTOFF)}, "COPY_NOT_RUNNING"),
        ({"there": HELD}, "COPY_MOVES"),
        ({"leaves": True}, "COPY_MOVES"),
        ({"elsewhere": ("h3",)}, "COPY_DOUBLED"),
        ({"no_room": "db needs 128 MiB, 24 are free"}, "NO_ROOM"),
    ],
)
def test_no_other_copy_becomes_the_run(changes: dict[str, Any], code: str) -> None:
    refused = refuse_adoption(moved(**changes))
    assert refused is not None
    assert (refused.code, bool(refused.next_step)) == (code, True)


def test_what_may_be_the_last_copy_may_be_adopted_instead() -> None:
    refused = refuse_copy(moved())
    assert refused is not None
    assert refused.next_step.startswith("`holdfast vm adopt-copy db --host h2`")
    nowhere = refuse_copy(moved(own_host=None, run_generation=None))
    assert nowhere is not None
    assert "adopt" not in nowhere.next_step
