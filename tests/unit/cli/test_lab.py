"""`holdfast lab` in the folder of a fleet: the same words on virtual hosts."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from domain.errors import NoAnswer
from simulator.fleet.control import FleetStatus, HostStatus, Mode
from simulator.fleet.drivers import FarControl
from simulator.fleet.saved import FleetFile
from simulator.fleet.spec import FleetSpec

pytestmark = pytest.mark.unit

GUESTS = tuple(f"vm-{number}" for number in range(1, 16))
H1 = HostStatus(
    name="h1",
    uri="qemu+tcp://h1/system",
    power=True,
    link=False,
    libvirt="silent",
    bmc="ok",
    guests=GUESTS,
)
WORDS: list[tuple[tuple[str, ...], str, tuple[Any, ...], str]] = [
    (("crash", "h1"), "crash", ("h1",), "h1 has no power"),
    (("power-on", "h1"), "power_on", ("h1",), "h1 boots"),
    (("isolate", "h1"), "isolate", ("h1",), "h1 is cut off, its guests run on"),
    (("heal", "h1"), "heal", ("h1",), "h1 has its network back"),
    (("hang", "h1"), "hang", ("h1",), "libvirtd of h1 is frozen, its guests run on"),
    (("unhang", "h1"), "unhang", ("h1",), "libvirtd of h1 goes on"),
    (("bmc", "h1", "lying"), "bmc", ("h1", Mode.LYING), "the power controller of h1: lying"),
]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...]]]:
    """A folder with a fleet, and what was asked of it."""
    seen: list[tuple[str, tuple[Any, ...]]] = []
    FleetFile(spec=FleetSpec()).write(tmp_path)
    monkeypatch.setenv("HOLDFAST_VAR", str(tmp_path))
    for _words, call, _args, _said in WORDS:

        async def note(_self: FarControl, *args: Any, call: str = call) -> None:
            seen.append((call, args))

        monkeypatch.setattr(FarControl, call, note)
    return seen


def lab(*words: str) -> Result:
    return CliRunner().invoke(app, ["lab", *words])


@pytest.mark.parametrize(("words", "call", "args", "said"), WORDS, ids=lambda w: str(w)[:20])
def test_each_fault_of_the_lab_is_one_of_the_fleet_with_the_same_words(
    asked: list[Any], words: tuple[str, ...], call: str, args: tuple[Any, ...], said: str
) -> None:
    done = lab(*words)
    assert done.exit_code == 0, done.stderr
    assert asked == [(call, args)]
    assert done.stderr == f"{said}\n"


def test_the_status_of_a_fleet_has_the_shape_of_a_lab_s(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def status(_self: FarControl) -> FleetStatus:
        return FleetStatus(name="fleet", network="virtual", folder="/f", hosts=(H1,))

    monkeypatch.setattr(FarControl, "status", status)
    seen = json.loads(lab("status", "-o", "json").stdout)
    assert set(seen) == {"name", "network", "folder", "hosts"}
    assert seen["hosts"][0] == H1.model_dump(mode="json")
    title, header, row = lab("status").stdout.splitlines()
    assert title == "lab fleet, network virtual, folder /f"
    assert header.split() == ["HOST", "POWER", "LINK", "LIBVIRT", "BMC", "GUESTS", "URI"]
    assert "vm-12 +3" in row


@pytest.mark.parametrize("words", [("up",), ("down",)])
def test_a_fleet_is_not_built_or_taken_down_as_a_lab_is(
    asked: list[Any], words: tuple[str, ...]
) -> None:
    done = lab(*words)
    assert done.exit_code == 1
    assert done.stderr.startswith("LAB_IS_FLEET: ")


def test_a_fleet_that_does_not_run_says_how_to_start_it(asked: list[Any]) -> None:
    done = lab("status")
    assert done.exit_code == 1
    assert done.stderr.startswith("FLEET_NO_ANSWER: ")
    assert "holdfast up --fleet" in done.stderr


def test_another_name_means_a_real_lab(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here() -> None:
        raise NoAnswer("LAB_NOT_POSSIBLE", "a lab cannot run here")

    monkeypatch.setattr("lab.requirements.require", none_here)
    done = lab("crash", "h1", "--name", "other")
    assert done.exit_code == 1
    assert done.stderr.startswith("LAB_NOT_POSSIBLE: ")
    assert asked == []


def test_a_fleet_has_no_redfish_and_says_what_it_has(tmp_path: Path, asked: list[Any]) -> None:
    refused = lab("redfish", "h1", "dead")
    assert refused.exit_code == 1
    assert "LAB_IS_FLEET: the controller of h1 speaks no Redfish" in refused.stderr
    assert "holdfast lab bmc h1 dead" in refused.stderr
    assert asked == []
