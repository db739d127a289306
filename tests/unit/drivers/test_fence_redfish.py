"""What a Redfish controller tells of the machine that it manages, and to whom a password goes."""

import base64
from collections.abc import Callable
from uuid import UUID

import httpx2
import pytest

from drivers.fence_redfish import machines, speaks_redfish

pytestmark = pytest.mark.unit

MACHINE = UUID("00112233-4455-6677-8899-aabbccddeeff")
OTHER_ORDER = UUID("33221100-5544-7766-8899-aabbccddeeff")
OPTIONS = {"ip": "10.0.0.1", "username": "operator", "ssl_insecure": "1"}
SECRETS = {"password": "s3cret"}
SYSTEM = "/redfish/v1/Systems/2"
RESOURCES = {
    "/redfish/v1": {"Systems": {"@odata.id": "/redfish/v1/Systems"}},
    "/redfish/v1/Systems": {
        "Members": [{"@odata.id": "/redfish/v1/Systems/1"}, {"@odata.id": SYSTEM}]
    },
    "/redfish/v1/Systems/1": {"UUID": "99999999-0000-0000-0000-000000000001"},
    SYSTEM: {"UUID": str(MACHINE)},
}
Answer = Callable[[httpx2.Request], httpx2.Response]


class Board:
    """Answers from a table, and keeps what it was asked."""

    def __init__(self, **instead: Answer) -> None:
        self.asked: list[httpx2.Request] = []
        self._instead = instead

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        path = request.url.path
        if (answer := self._instead.get(path.rsplit("/", 1)[-1])) is not None:
            return answer(request)
        return httpx2.Response(200, json=RESOURCES[path])

    async def tells(self, **options: str) -> tuple[UUID, ...]:
        return await machines(OPTIONS | options, SECRETS, 5.0, httpx2.MockTransport(self))


async def test_the_machine_is_that_of_the_system_which_the_agent_would_cut() -> None:
    board = Board()
    assert await board.tells() == (MACHINE, OTHER_ORDER)
    assert [str(request.url) for request in board.asked] == [
        "https://10.0.0.1/redfish/v1",
        "https://10.0.0.1/redfish/v1/Systems",
        f"https://10.0.0.1{SYSTEM}",
    ]
    account = base64.b64encode(b"operator:s3cret").decode()
    assert {r.headers["authorization"] for r in board.asked} == {f"Basic {account}"}


async def test_a_system_that_is_named_is_the_one_that_is_asked() -> None:
    board = Board()
    named = {"systems-uri": "/redfish/v1/Systems/1", "ipport": "8443"}
    assert UUID("99999999-0000-0000-0000-000000000001") in await board.tells(**named)
    (asked,) = board.asked
    assert str(asked.url) == "https://10.0.0.1:8443/redfish/v1/Systems/1"


async def test_an_address_with_a_port_of_its_own_is_taken_as_the_agent_takes_it() -> None:
    board = Board()
    assert await board.tells(ip="10.0.0.2:4443") == (MACHINE, OTHER_ORDER)
    assert {request.url.netloc for request in board.asked} == {b"10.0.0.2:4443"}


def moved(to: str) -> Answer:
    return lambda _request: httpx2.Response(308, headers={"location": to})


async def test_a_root_that_moved_by_a_slash_is_followed() -> None:
    def root(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/"):
            return httpx2.Response(200, json=RESOURCES["/redfish/v1"])
        return moved("/redfish/v1/")(request)

    board = Board(v1=root)
    board._instead[""] = root
    assert await board.tells() == (MACHINE, OTHER_ORDER)


@pytest.mark.parametrize(
    "to", ["https://10.0.0.9/redfish/v1", "http://10.0.0.1/redfish/v1", "//10.0.0.9/x"]
)
async def test_the_password_goes_to_no_other_address(to: str) -> None:
    for board in (
        Board(v1=moved(to)),
        Board(v1=lambda _r: httpx2.Response(200, json={"Systems": {"@odata.id": to}})),
    ):
        assert await board.tells() == ()
        assert {request.url.netloc for request in board.asked} == {b"10.0.0.1"}
        assert {request.url.scheme for request in board.asked} == {"https"}


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(401, json={"error": "who are you"}),
        httpx2.Response(200, text="<html>"),
        httpx2.Response(200, json={"Members": []}),
        httpx2.Response(200, json=[]),
        httpx2.Response(200, json={"Members": [{"@odata.id": None}]}),
    ],
)
async def test_an_answer_that_tells_nothing_is_no_failure(answer: httpx2.Response) -> None:
    assert await Board(Systems=lambda _request: answer).tells() == ()


async def test_a_board_that_was_never_told_its_uuid_tells_none() -> None:
    for said in ("00000000-0000-0000-0000-000000000000", "not a uuid"):
        answer = httpx2.Response(200, json={"UUID": said})
        assert await Board(**{"2": lambda _r, a=answer: a}).tells() == ()


async def test_a_board_that_nobody_reaches_tells_none() -> None:
    def silent(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no route", request=request)

    assert await Board(v1=silent).tells() == ()


def test_only_redfish_with_an_address_is_asked() -> None:
    assert speaks_redfish("fence_redfish", OPTIONS)
    assert not speaks_redfish("fence_redfish", {"username": "operator"})
    assert not speaks_redfish("fence_ipmilan", OPTIONS)
