"""The demo: it touches nothing but its own folder, and its report does not flatter."""

import sys
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import cli.demo
from cli.claims import only_engine
from cli.demo import demo_settings, forget
from cli.demo_grounds import FleetCount
from cli.demo_report import PHASES, failures, make_report, show_report, write_report
from lab.sampler import Copy, Samples
from simulator.fleet.control import Copies
from worker.settings import Settings

pytestmark = pytest.mark.unit

CUT = datetime(2026, 1, 1, tzinfo=UTC)
Json = dict[str, Any]


def at(seconds: float) -> str:
    return (CUT + timedelta(seconds=seconds)).isoformat()


# -- its own folder --------------------------------------------------------------------------------


def test_the_demo_uses_no_database_server_or_port_of_a_real_engine(tmp_path: Path) -> None:
    env = {
        "HOLDFAST_VAR": str(tmp_path),
        "HOLDFAST_DATABASE_URL": "postgresql+asyncpg://real/holdfast",
        "HOLDFAST_TEMPORAL_ADDRESS": "real:7233",
        "HOLDFAST_API_HOST": "0.0.0.0",
        "HOLDFAST_API_PORT": "8420",
        "HOLDFAST_UI_PORT": "8233",
    }
    assert demo_settings(env) == Settings(var=tmp_path / "demo", api_port=0)


def test_the_demo_keeps_what_only_changes_how_it_is_watched() -> None:
    env = {"HOLDFAST_TRACES": "console", "HOLDFAST_LOG_LEVEL": "debug"}
    wanted = Settings(var=Path("var/demo"), api_port=0, traces="console", log_level="debug")
    assert demo_settings(env) == wanted


def databases(var: Path) -> list[Path]:
    names = ("holdfast.db", "holdfast.db-wal", "fleet.json", "temporal/temporal-1.db")
    files = [var / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("rows")
    return files


def test_forgetting_an_earlier_demo_leaves_the_engine_around_it_alone(tmp_path: Path) -> None:
    theirs, ours = databases(tmp_path), databases(tmp_path / "demo")
    forget(demo_settings({"HOLDFAST_VAR": str(tmp_path)}).var)
    assert [file for file in ours if file.exists()] == []
    assert [file for file in theirs if not file.exists()] == []


def test_a_demo_that_is_still_running_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = databases(tmp_path / "demo")
    monkeypatch.setenv("HOLDFAST_VAR", str(tmp_path))
    monkeypatch.setattr(cli.demo, "exit_process", sys.exit)
    with only_engine(tmp_path / "demo"), pytest.raises(SystemExit, match="1"):
        cli.demo.run_demo()
    assert "ENGINE_RUNNING" in capsys.readouterr().out
    assert [file for file in ours if not file.exists()] == []


# -- its report ------------------------------------------------------------------------------------


def moved(name: str, back: float | None, *, protected: bool = True) -> Json:
    """A VM of the incident: claimed on h2, and started there or not."""
    return {
        "name": name,
        "protected": protected,
        "host_before": "h1",
        "host_after": "h2",
        "running_again_at": None if back is None else at(back),
    }


def incident(*vms: Json, **more: Any) -> Json:
    began = {phase: at(0.5 * i) for i, phase in enumerate((*PHASES, "done"))}
    evidence = {"kind": "power_reading", "device": "bmc-h1", "verdict": "off", "at": at(1)}
    return {
        "host_name": "h1",
        "epoch": 1,
        "why": "silent, and its power reads off",
        "certificate": {"state": "valid", "evidence": [evidence]},
        "phase_began": began,
        "vms": list(vms),
    } | more


def samples(*running: tuple[str, str]) -> Samples:
    copies = tuple(Copy(vm=vm, uuid=vm, host=host, pid=1) for vm, host in running)
    return Samples(
        most={vm: 1 for vm, _host in running},
        timeline=(),
        running=copies,
        scans=100,
        elapsed_s=10.0,
        longest_gap_s=0.1,
    )


def vm(name: str, host: str | None, *, protected: bool = True) -> Json:
    return {"name": name, "protected": protected, "host_name": host}


def report(of: Json, *vms: Json) -> Json:
    running = [(vm["name"], vm["host_name"]) for vm in vms if vm["host_name"]]
    return make_report(of, CUT, list(vms), samples(*running))


def row(of: Json, name: str) -> Json:
    found: Json = next(vm for vm in of["vms"] if vm["name"] == name)
    return found


def test_a_recovery_as_it_must_be_shows_every_figure_and_no_failure() -> None:
    of = incident(moved("db", 3.0), moved("web", 3.5))
    good = report(of, vm("db", "h2"), vm("web", "h2"), vm("dns", "h3"))
    assert failures(good) == []
    assert good["all_protected_running_s"] == 3.5
    assert good["phases_s"] == dict.fromkeys(PHASES, 0.5)
    assert row(good, "db")["host_after"] == "h2"
    assert row(good, "dns")["recovery_s"] is None


def test_one_protected_vm_that_did_not_come_back_leaves_no_total() -> None:
    of = incident(moved("db", 3.0), moved("web", None))
    found = report(of, vm("db", "h2"), vm("web", None))
    assert found["all_protected_running_s"] is None
    assert row(found, "web")["host_after"] is None
    assert "web does not run on another host" in failures(found)


def test_an_unprotected_vm_that_stayed_down_does_not_count() -> None:
    of = incident(moved("db", 3.0), moved("batch", None, protected=False))
    found = report(of, vm("db", "h2"), vm("batch", None, protected=False))
    assert failures(found) == []
    assert found["all_protected_running_s"] == 3.0


def test_a_host_that_returned_by_itself_gives_a_report_with_gaps(tmp_path: Path) -> None:
    began = {"detect": at(0), "decide": at(1), "done": at(4)}
    of = incident(certificate=None, phase_began=began)
    found = report(of, vm("db", "h1"))
    assert found["phases_s"] == dict.fromkeys(PHASES, None) | {"detect": 1.0}
    assert found["all_protected_running_s"] is None
    assert "db does not run on another host" in failures(found)
    write_report(found, tmp_path / "report.json")
    screen = StringIO()
    show_report(found, Console(file=screen, width=120))
    assert "1.00 s" in screen.getvalue()


@pytest.mark.parametrize("certificate", [None, {"state": "valid", "evidence": []}])
def test_a_restart_without_recorded_proof_is_a_failure(certificate: Json | None) -> None:
    found = report(incident(moved("db", 3.0), certificate=certificate), vm("db", "h2"))
    assert failures(found) == ["there is no death certificate with its evidence"]


@pytest.mark.parametrize("phase", PHASES[1:])
def test_a_missing_phase_is_a_failure_that_names_it(phase: str) -> None:
    of = incident(moved("db", 3.0))
    del of["phase_began"][phase]
    found = report(of, vm("db", "h2"))
    assert found["phases_s"][phase] is None
    (line,) = failures(found)
    assert phase in line


# -- where it takes place --------------------------------------------------------------------------


def obstacles(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    monkeypatch.setattr("lab.requirements.obstacles", lambda: found)


async def shown(monkeypatch: pytest.MonkeyPatch, var: Path, *, fleet: bool) -> tuple[str, str]:
    """What the demo says about its hosts, and the fleet that its engine gets."""
    got: list[Settings] = []

    async def show(settings: Settings, _console: Console) -> int:
        got.append(settings)
        return 0

    monkeypatch.setenv("HOLDFAST_VAR", str(var))
    monkeypatch.setattr(cli.demo, "_show", show)
    screen = StringIO()
    assert await cli.demo._demo(Console(file=screen, width=300), fleet=fleet) == 0
    return screen.getvalue(), got[0].fleet


async def test_the_demo_takes_real_hosts_where_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obstacles(monkeypatch)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: True)
    said, fleet = await shown(monkeypatch, tmp_path, fleet=False)
    assert said.startswith("on real hosts")
    assert fleet == ""


async def test_the_demo_takes_virtual_hosts_elsewhere_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obstacles(monkeypatch, "it needs root", "packages are missing")
    said, fleet = await shown(monkeypatch, tmp_path, fleet=False)
    assert said.startswith("on virtual hosts")
    assert "it needs root; packages are missing" in said
    assert fleet == "sim:hosts=3,vms=0"


async def test_the_demo_takes_virtual_hosts_when_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obstacles(monkeypatch)
    said, fleet = await shown(monkeypatch, tmp_path, fleet=True)
    assert "--fleet asks for them" in said
    assert fleet == "sim:hosts=3,vms=0"


def test_the_fleet_s_own_count_of_copies_is_as_good_as_a_sampler_s() -> None:
    of = incident(moved("db", 3.0))
    once = FleetCount((Copies(vm="db", hosts=("h2",), most=1),))
    twice = FleetCount((Copies(vm="db", hosts=("h1", "h2"), most=2),))
    assert failures(make_report(of, CUT, [vm("db", "h2")], once)) == []
    assert failures(make_report(of, CUT, [vm("db", "h2")], twice)) == [
        "db ran 2 times at once",
        "db has 2 copies instead of one",
    ]
    assert "db has 0 copies instead of one" in failures(
        make_report(of, CUT, [vm("db", "h2")], FleetCount(()))
    )
