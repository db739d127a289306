"""People of a site: a token of their own, a role, and nobody's secret kept."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.people import GIVEN, People, people_file
from cli.nouns.token import Role as CliRole
from domain.errors import Conflict, Denied, Invalid, NotFound
from domain.permissions import Role
from engine.roles import Roles
from store.database import Database
from tests.unit.api.desk import Desk, check_problem, client_of

pytestmark = pytest.mark.unit


@pytest.fixture
def people(tmp_path: Path) -> People:
    return People(people_file(tmp_path / "var"))


def test_without_a_file_there_is_the_admin_alone(people: People) -> None:
    assert dict(people) == {"admin": Role.ADMIN}
    assert people.holder("anything") is None


def test_a_token_names_its_holder_and_no_other_does(people: People) -> None:
    ann, bob = people.add("ann", Role.OPERATOR), people.add("bob", Role.VIEWER)
    assert (people.holder(ann), people.holder(bob)) == ("ann", "bob")
    assert [people.holder(wrong) for wrong in ("", ann[:-1], f"{ann}x", bob.upper())] == [None] * 4
    assert dict(people) == {"admin": Role.ADMIN, "ann": Role.OPERATOR, "bob": Role.VIEWER}


def test_only_digests_are_kept_and_only_their_owner_reads_them(
    people: People, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        token = people.add("ann", Role.OPERATOR)
    finally:
        os.umask(before)
    kept = people_file(tmp_path / "var")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert token.removeprefix("holdfast_") not in kept.read_text()


def test_a_removed_person_is_refused_at_once_by_everybody_who_had_read_the_file(
    people: People, tmp_path: Path
) -> None:
    other = People(people_file(tmp_path / "var"))
    token = people.add("ann", Role.OPERATOR)
    assert other.holder(token) == "ann"
    people.remove("ann")
    assert other.holder(token) is None
    assert Roles(other, Role.VIEWER).of("ann") is Role.VIEWER
    with pytest.raises(NotFound, match="PERSON_UNKNOWN"):
        people.remove("ann")


def test_a_name_has_one_token(people: People) -> None:
    token = people.add("ann", Role.OPERATOR)
    with pytest.raises(Conflict, match="PERSON_EXISTS"):
        people.add("ann", Role.ADMIN)
    assert people.holder(token) == "ann"
    assert people["ann"] is Role.OPERATOR


@pytest.mark.parametrize("name", ["", "Ann", "a b", "monitor:m1", "../x", "a" * 64, "ann\n"])
def test_what_is_no_name_gets_no_token(people: People, name: str) -> None:
    with pytest.raises(Invalid, match="PERSON_NAME"):
        people.add(name, Role.VIEWER)
    assert dict(people) == {"admin": Role.ADMIN}


@pytest.mark.parametrize(
    ("name", "role"), [("admin", Role.VIEWER), ("m1", Role.MONITOR), ("e", Role.ENGINE)]
)
def test_what_is_the_engines_own_is_given_to_nobody(people: People, name: str, role: Role) -> None:
    with pytest.raises(Invalid, match="PERSON_RESERVED"):
        people.add(name, role)


def test_a_file_that_others_can_read_or_that_is_garbage_lets_nobody_in(
    people: People, tmp_path: Path
) -> None:
    token = people.add("ann", Role.OPERATOR)
    path = people_file(tmp_path / "var")
    path.chmod(0o640)
    with pytest.raises(Denied, match="PEOPLE_EXPOSED"):
        people.holder(token)
    path.chmod(0o600)
    path.write_text('{"ann": {"role": "king"}}')
    with pytest.raises(Denied, match="PEOPLE_UNREADABLE"):
        people.holder(token)


def test_of_many_who_are_added_at_once_none_is_lost(people: People) -> None:
    names = [f"p{number}" for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda name: people.add(name, Role.VIEWER), names))
    assert [people.holder(token) for token in tokens] == names


def test_the_command_line_offers_the_roles_that_can_be_given() -> None:
    assert [role.value for role in CliRole] == [role.value for role in GIVEN]


async def test_requests_are_made_in_the_name_of_whose_token_they_carry(
    database: Database, people: People
) -> None:
    desk = Desk(database, people)
    ann, bob = people.add("ann", Role.ADMIN), people.add("bob", Role.OPERATOR)
    async with client_of(desk.app, bob) as client:
        answer = await client.post("/api/v1/clusters", json={"name": "c2"})
        check_problem(answer, 403, "PERMISSION_DENIED")
        assert "bob is operator" in answer.json()["detail"]
        assert (await client.get("/api/v1/clusters")).status_code == 200
    async with client_of(desk.app, ann) as client:
        accepted = await client.post("/api/v1/clusters", json={"name": "c2"})
        assert accepted.status_code < 300
        audit = (await client.get("/api/v1/audit")).json()["items"]
    assert audit[0]["principal"] == "ann"
    people.remove("ann")
    async with client_of(desk.app, ann) as client:
        check_problem(await client.get("/api/v1/clusters"), 401, "TOKEN_WRONG")
