"""Which domains a host starts by itself at boot, and how its row keeps them."""

import pytest

from domain.autostart import KEPT_MAX, counts, kept, names_in, next_step, told

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("autostart", "generation", "expected"),
    [(True, 3, True), (True, None, False), (False, 3, False), (False, None, False)],
)
def test_only_what_carries_our_mark_and_starts_by_itself_counts(
    autostart: bool, generation: int | None, expected: bool
) -> None:
    assert counts(autostart=autostart, generation=generation) is expected


def test_names_are_kept_in_order_and_read_back_and_none_is_nothing() -> None:
    assert names_in(kept(("web", "db, old", "web"))) == ("db, old", "web")
    assert (kept(()), names_in("")) == ("", ())


def test_names_for_which_there_is_no_room_are_left_out_whole() -> None:
    names = tuple(f"vm-{number:03d}-{'x' * 93}" for number in range(20))
    assert len(kept(names)) <= KEPT_MAX
    assert names_in(kept(names)) == names[:10]


def test_what_is_told_names_each_domain_and_its_command() -> None:
    assert told("h1", ("db", "web")) == "h1 starts db, web by itself at boot, past the engine"
    step = next_step("h1", ("db", "web"))
    assert "on h1: `virsh autostart --disable db`, `virsh autostart --disable web`" in step
