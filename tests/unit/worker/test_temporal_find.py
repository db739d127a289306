"""Which Temporal is taken: the order, what is passed over, and the three ways out."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from domain.errors import Invalid, Unavailable
from worker.temporal_find import ExistingServer, Program, find_temporal
from worker.temporal_get import NotObtained, Say, pinned

pytestmark = pytest.mark.unit

NAME = f"temporal-{pinned().version}"


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def program(path: Path, cli: str = "1.8.2", server: str = "1.31.2") -> Path:
    return script(path, f"echo 'temporal version {cli} (Server {server}, UI 2.50.1)'")


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """A machine with nothing on it: an empty PATH, an empty home and an empty var."""
    (tmp_path / "path").mkdir(exist_ok=True)
    return {
        "PATH": str(tmp_path / "path"),
        "HOME": str(tmp_path / "home"),
        "HOLDFAST_VAR": str(tmp_path / "var"),
        **more,
    }


class Getters:
    """Stand-ins for download and build that record who was asked and may refuse."""

    def __init__(self, *refusing: str) -> None:
        self.asked: list[str] = []
        self._refusing = refusing

    def pairs(self) -> tuple[tuple[str, "Getter"], ...]:
        return tuple((name, Getter(name, self)) for name in ("downloaded", "built"))

    def take(self, name: str, path: Path) -> None:
        self.asked.append(name)
        if name in self._refusing:
            raise NotObtained(f"{name} is out of order")
        program(path)


class Getter:
    def __init__(self, name: str, getters: Getters) -> None:
        self._name = name
        self._getters = getters

    def __call__(self, path: Path, env: Mapping[str, str], say: Say) -> None:
        self._getters.take(self._name, path)


def find(env: dict[str, str], getters: Getters | None = None) -> ExistingServer | Program:
    return find_temporal(env, print, (getters or Getters("downloaded", "built")).pairs())


def test_a_named_server_wins_over_everything_and_nothing_is_run(tmp_path: Path) -> None:
    script(tmp_path / "path" / "temporal", f"touch {tmp_path}/was-run")
    env = environment(tmp_path, HOLDFAST_TEMPORAL_ADDRESS="temporal.example:7233")
    assert find(env) == ExistingServer("temporal.example:7233")
    assert not (tmp_path / "was-run").exists()


def test_an_address_without_a_port_is_refused_with_an_example(tmp_path: Path) -> None:
    env = environment(tmp_path, HOLDFAST_TEMPORAL_ADDRESS="temporal.example")
    with pytest.raises(Invalid) as refused:
        find(env)
    assert refused.value.code == "TEMPORAL_ADDRESS_INVALID"
    assert "127.0.0.1:7233" in refused.value.next_step


def test_what_is_at_hand_is_taken_in_order_and_nothing_is_fetched(tmp_path: Path) -> None:
    env, getters = environment(tmp_path), Getters()
    places = [
        program(tmp_path / "path" / "temporal"),
        program(tmp_path / "var" / "bin" / NAME),
        program(tmp_path / "home" / ".cache" / "holdfast" / "bin" / NAME),
    ]
    for place in places:
        found = find(env, getters)
        assert isinstance(found, Program)
        assert found.path == place
        place.unlink()
    assert getters.asked == []


def test_a_path_of_several_folders_with_a_gap_is_searched_to_its_end(tmp_path: Path) -> None:
    kept = program(tmp_path / "second" / "temporal")
    env = environment(tmp_path)
    env["PATH"] = os.pathsep.join([env["PATH"], str(tmp_path / "gone"), str(kept.parent)])
    found = find(env)
    assert isinstance(found, Program)
    assert (found.path, found.origin) == (kept, "PATH")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("echo 'temporal version 1.5.0 (Server 1.29.1, UI 2.0)'", "1.31 or newer is needed"),
        ("echo 'I am something else'", "does not say which Temporal server"),
        ("exit 3", "does not say which Temporal server"),
    ],
)
def test_a_program_that_cannot_serve_us_is_passed_over_with_the_reason(
    tmp_path: Path, body: str, why: str
) -> None:
    script(tmp_path / "path" / "temporal", body)
    kept = program(tmp_path / "var" / "bin" / NAME)
    said: list[str] = []
    found = find_temporal(environment(tmp_path), said.append, ())
    assert isinstance(found, Program)
    assert found.path == kept
    assert [line for line in said if why in line]


def test_a_download_comes_before_a_build_and_is_kept_for_the_next_time(tmp_path: Path) -> None:
    env, getters = environment(tmp_path), Getters()
    found = find(env, getters)
    assert isinstance(found, Program)
    assert (found.origin, getters.asked) == ("downloaded", ["downloaded"])
    again = find(env, getters)
    assert isinstance(again, Program)
    assert (again.path, again.origin) == (found.path, "earlier build")
    assert getters.asked == ["downloaded"]


def test_a_build_follows_a_download_that_failed(tmp_path: Path) -> None:
    getters = Getters("downloaded")
    found = find(environment(tmp_path), getters)
    assert isinstance(found, Program)
    assert (found.origin, getters.asked) == ("built", ["downloaded", "built"])


def test_a_home_that_cannot_be_written_leaves_the_program_beside_the_data(tmp_path: Path) -> None:
    env = environment(tmp_path)
    Path(env["HOME"]).write_text("a file, so no folder can be made in it")
    found = find(env, Getters())
    assert isinstance(found, Program)
    assert found.path.parent == tmp_path / "var" / "bin"


def test_when_nothing_works_one_error_names_each_reason_and_three_ways_out(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as missing:
        find(environment(tmp_path))
    assert missing.value.code == "TEMPORAL_MISSING"
    assert "downloaded is out of order" in missing.value.detail
    assert "built is out of order" in missing.value.detail
    for way in ("HOLDFAST_TEMPORAL_ADDRESS", "on PATH", "install Go"):
        assert way in missing.value.next_step
