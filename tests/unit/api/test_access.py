"""Who gets in: every route but the public ones wants the token."""

import hashlib
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.auth import TokenAuth, read_or_create_token, token_file
from api.docs import FOLDER
from domain.errors import Denied
from store.ids import new_id
from tests.unit.api.desk import ASSET, PUBLIC, TOKEN, Desk, check_problem, client_of

pytestmark = pytest.mark.unit


def filled(path: str) -> str:
    """A path with an id in the place of each parameter."""
    return "/".join(str(new_id()) if part.startswith("{") else part for part in path.split("/"))


async def test_every_route_but_the_public_ones_refuses_a_request_without_the_token(
    desk: Desk,
) -> None:
    closed = [(method, path) for method, path in desk.operations() if path not in PUBLIC]
    assert len(closed) > 15
    for method, path in closed:
        for token, code in ((None, "TOKEN_MISSING"), ("wrong", "TOKEN_WRONG")):
            async with client_of(desk.app, token) as stranger:
                answer = await stranger.request(method, filled(path))
            check_problem(answer, 401, code)
            assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_the_public_routes_answer_without_a_token(desk: Desk) -> None:
    served = {path for _method, path in desk.operations()}
    assert served >= PUBLIC
    async with client_of(desk.app, None) as stranger:
        for path in sorted(PUBLIC):
            assert (await stranger.get(path)).status_code == 200, path


async def test_the_described_paths_are_those_that_are_served(desk: Desk) -> None:
    document = (await desk.client.get("/api/v1/openapi.json")).json()
    described = {(m.upper(), p) for p, item in document["paths"].items() for m in item}
    tools = {("GET", "/api/v1/docs"), ("GET", ASSET), ("GET", "/api/v1/openapi.json")}
    assert described == set(desk.operations()) - tools


async def test_the_page_for_people_needs_nothing_from_elsewhere(desk: Desk) -> None:
    async with client_of(desk.app, None) as stranger:
        page = (await stranger.get("/api/v1/docs")).text
        wanted = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert [url for url in wanted if "//" in url] == []
        assets = [url for url in wanted if url.startswith("/")]
        assert len(assets) == 2
        for url in assets:
            assert (await stranger.get(url)).status_code == 200, url


def test_the_page_s_files_are_those_that_were_published() -> None:
    for line in (FOLDER / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"],
)
async def test_only_the_whole_token_under_the_right_scheme_counts(desk: Desk, header: str) -> None:
    desk.client.headers["Authorization"] = header
    check_problem(await desk.get("/vms"), 401)


async def test_an_engine_without_a_token_lets_nobody_in(desk: Desk) -> None:
    desk.app.state.auth = TokenAuth("")
    for header in ("Bearer", "Bearer ", ""):
        desk.client.headers["Authorization"] = header
        check_problem(await desk.get("/vms"), 401)


async def test_a_refused_stranger_changes_nothing(desk: Desk) -> None:
    async with client_of(desk.app, "wrong") as stranger:
        answer = await stranger.post("/api/v1/clusters", json={"name": "c2"})
    check_problem(answer, 401, "TOKEN_WRONG")
    assert [item["name"] for item in (await desk.get("/clusters")).json()["items"]] == ["c1"]


def test_the_token_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = token_file(tmp_path / "var")
    before = os.umask(0)
    try:
        token = read_or_create_token(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(token) > 32
    assert read_or_create_token(path) == token
    assert [file.name for file in path.parent.iterdir()] == ["token"]


def test_processes_that_start_together_agree_on_one_token(tmp_path: Path) -> None:
    path = token_file(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        tokens = set(threads.map(read_or_create_token, [path] * 32))
    assert tokens == {path.read_text().strip()}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_token_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = token_file(tmp_path)
    token = read_or_create_token(path)
    path.chmod(mode)
    with pytest.raises(Denied) as refused:
        read_or_create_token(path)
    assert refused.value.code == "TOKEN_EXPOSED"
    assert f"chmod 600 {path}" in refused.value.next_step
    assert token not in str(refused.value)


def test_a_token_file_without_a_token_is_refused(tmp_path: Path) -> None:
    path = token_file(tmp_path)
    path.touch(mode=0o600)
    with pytest.raises(Denied) as refused:
        read_or_create_token(path)
    assert refused.value.code == "TOKEN_EMPTY"
