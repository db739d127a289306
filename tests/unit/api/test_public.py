"""What the API tells without a token, and at what rate."""

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.version import VERSION
from engine.public import BURST
from tests.unit.api.desk import PUBLIC, TOLD, Desk, check_problem, client_of

pytestmark = pytest.mark.unit


async def test_every_public_question_has_its_answer_without_a_token(desk: Desk) -> None:
    async with client_of(desk.app, None) as stranger:
        told = {word: (await stranger.get(f"/api/v1/{word}")).json() for word in TOLD}
    assert told["health"]["status"] == "ok"
    assert told["version"] == {"version": VERSION, "api": "v1"}
    assert "vm.start" in {action["kind"] for action in told["capabilities"]["actions"]}
    assert [method["name"] for method in told["auth-methods"]] == ["token"]
    names = [profile["name"] for profile in told["timing-profiles"]]
    assert names == ["classic", "balanced", "fast", "careful"]


async def test_the_routes_without_a_token_are_exactly_the_public_ones(desk: Desk) -> None:
    async with client_of(desk.app, None) as stranger:
        open_ = set()
        for method, path in desk.operations():
            if method == "GET" and "{" not in path:
                answer = await stranger.get(path)
                open_ |= {path} if answer.status_code != 401 else set()
    assert open_ == PUBLIC


async def test_the_description_says_which_routes_need_a_token(desk: Desk) -> None:
    paths = (await desk.client.get("/api/v1/openapi.json")).json()["paths"]
    without = {p for p, item in paths.items() if not all("security" in o for o in item.values())}
    assert without == PUBLIC & set(paths)


async def test_too_many_questions_are_refused_with_the_time_to_wait(desk: Desk) -> None:
    async with client_of(desk.app, None) as stranger:
        for _ in range(int(BURST)):
            assert (await stranger.get("/api/v1/version")).status_code == 200
        answer = await stranger.get("/api/v1/health")
        document = check_problem(answer, 429, "RATE_LIMITED")
        assert answer.headers["Retry-After"] == "1"
        assert document["retryable"]
        assert (await stranger.get("/livez")).status_code == 200
    assert (await desk.get("/vms")).status_code == 200, "whoever has a token is not limited"


async def test_an_engine_whose_tables_are_too_old_is_not_ready(desk: Desk) -> None:
    async def set_back(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))

    await desk.database.write(set_back)
    document = check_problem(await desk.client.get("/readyz"), 503, "DATABASE_REVISION")
    assert "0001" in document["detail"]
    assert (await desk.client.get("/api/v1/health")).json()["status"] == "degraded"


async def test_an_unknown_or_impossible_filter_is_refused_by_its_name(desk: Desk) -> None:
    for params in ({"nmae": "db"}, {"limit": "501"}, {"state": "asleep"}, {"name": "a\0"}):
        document = check_problem(await desk.get("/vms", params=params), 422, "REQUEST_INVALID")
        assert [error["pointer"] for error in document["errors"]] == [f"/{next(iter(params))}"]


async def test_a_list_is_walked_by_its_cursors_and_counted_on_request(desk: Desk) -> None:
    for name in ("a", "b", "c"):
        await desk.world.vm(name)
    first = (await desk.get("/vms", params={"limit": 2, "count": True})).json()
    assert ([item["name"] for item in first["items"]], first["total"]) == (["a", "b"], 3)
    rest = await desk.get("/vms", params={"limit": 2, "cursor": first["next_cursor"]})
    assert [item["name"] for item in rest.json()["items"]] == ["c"]
    assert (rest.json()["next_cursor"], rest.json()["total"]) == (None, None)


async def test_the_audit_trail_tells_who_did_what_to_an_object_and_why(desk: Desk) -> None:
    path = f"/clusters/{desk.world.cluster_id}/actions/disarm"
    await desk.post(path, X_Reason="new rack", Correlation_Id="chg-7")
    params = {"entity_type": "cluster", "entity_id": str(desk.world.cluster_id)}
    (event,) = (await desk.get("/audit", params=params)).json()["items"]
    assert (event["principal"], event["reason"]) == ("admin", "new rack")
    assert (event["correlation_id"], event["type"]) == ("chg-7", "cluster.arm.done")
    assert (event["before"]["armed"], event["after"]["armed"]) == (True, False)
    later = params | {"since": "2100-01-01T00:00:00Z"}
    assert (await desk.get("/audit", params=later)).json()["items"] == []
