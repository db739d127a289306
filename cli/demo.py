"""`holdfast demo`: a data centre in a box, a power cut, and what the engine makes of it.

The engine's own processes and its REST API are real on every machine. Where a lab can be, libvirtd,
QEMU and IPMI are, too; elsewhere, or with `--fleet`, a fleet without hardware stands in their place
(see `cli.demo_grounds`).

Invariant: the demo has a folder of its own, `demo` under HOLDFAST_VAR or ./var, with its own
database, Temporal and ports, and begins by forgetting what an earlier demo left there. Whatever
else the environment names belongs to a real engine and is not touched.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.markup import escape

from api.auth import token_file
from cli.claims import only_engine
from cli.demo_grounds import FLEET, FleetGround, Ground, running_lab, why_no_lab
from cli.demo_report import failures, make_report, show_report, write_report
from cli.demo_world import DemoFailed, World
from cli.up import Engine, addresses, engine_in_its_folder
from domain.errors import EngineError
from simulator.fleet.place import FILE, SOCKET
from worker.exit import exit_process
from worker.settings import Settings

VICTIM = "h1"
RECOVERY_LIMIT_S = 180.0


def run_demo(*, fleet: bool = False) -> None:
    """Run the demo; ends the process with 0 only if every protected VM runs again elsewhere."""
    console = Console(highlight=False)
    try:
        code = asyncio.run(_demo(console, fleet=fleet))
    except EngineError as error:
        console.print(f"[red]error:[/red] {error.detail} ({error.code})")
        if error.next_step:
            console.print(f"  next: {error.next_step}")
        code = 1
    except KeyboardInterrupt:
        code = 130
    exit_process(code)


def demo_settings(env: Mapping[str, str]) -> Settings:
    """The demo's own engine: of the environment only what cannot lead it to another one's data."""
    given = Settings.from_env(env)
    kept = given.model_dump(include={"traces", "steps_at_once", "log_level"})
    return Settings(var=given.var / "demo", api_port=0, **kept)


async def _demo(console: Console, *, fleet: bool) -> int:
    settings = demo_settings(os.environ)
    why = "--fleet asks for them" if fleet else why_no_lab()
    if why:
        console.print(f"on virtual hosts, without libvirt and QEMU: {escape(why)}")
        settings = settings.model_copy(update={"fleet": str(FLEET)})
    else:
        console.print("on real hosts in a lab: this is root, and libvirtd and QEMU are here")
    with only_engine(settings.var):
        forget(settings.var)
        return await _show(settings, console)


async def _show(settings: Settings, console: Console) -> int:
    say = _Teller(console)
    async with AsyncExitStack() as stack:
        ground: Ground = FleetGround(settings.var)
        if not settings.fleet:
            ground = await stack.enter_async_context(running_lab(settings.var, say.line))
        engine = await stack.enter_async_context(engine_in_its_folder(settings, say.line))
        async with _world(engine) as world:
            report = await _power_cut(world, ground, say)
        write_report(report, settings.var / "report.json")
        show_report(report, console)
        console.print(f"report: {settings.var / 'report.json'}")
        wrong = failures(report)
        for line in wrong:
            console.print(f"[red]wrong:[/red] {line}")
        if sys.stdout.isatty() and sys.stdin.isatty():
            await _until_interrupted(engine, console)
    return 1 if wrong else 0


class _Teller:
    """Prints lines with the seconds since the fault."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.zero: datetime | None = None

    def line(self, text: str) -> None:
        """One line of progress."""
        if self.zero is None:
            self._console.print(f"         {text}")
        else:
            self.at(datetime.now(UTC), text)

    def at(self, when: datetime, text: str) -> None:
        """One line about something that happened at a time."""
        assert self.zero is not None
        self._console.print(f"[cyan]{(when - self.zero).total_seconds():+7.2f}s[/cyan] {text}")


def forget(var: Path) -> None:
    """Empty the demo's engine: an earlier demo's hosts are gone, and so is what ran on them."""
    for name in ("holdfast.db", "holdfast.db-wal", "holdfast.db-shm", FILE, SOCKET):
        (var / name).unlink(missing_ok=True)
    for old in (var / "temporal").glob("*.db*"):
        old.unlink()


@asynccontextmanager
async def _world(engine: Engine) -> AsyncIterator[World]:
    token = token_file(engine.settings.var).read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=engine.url, headers=headers, timeout=10) as client:
        yield World(client)


async def _power_cut(world: World, ground: Ground, say: _Teller) -> dict[str, Any]:
    say.line("adding 3 hosts with their power controllers, and 6 VMs, through the API")
    await world.build(ground)
    await world.start_all()
    say.line("6 VMs run; 4 of them on h1")
    await _until_warm(world)
    async with ground.counting() as counted:
        cut_at = datetime.now(UTC)
        await ground.cut(VICTIM)
        say.zero = cut_at
        say.at(cut_at, f"[bold red]the power of {VICTIM} is cut[/bold red], silently")
        incident = await _follow(world, say)
        say.line(f"powering {VICTIM} on again")
        operation = await world.act(f"/hosts/{world.hosts[VICTIM]}/actions/activate")
        say.line(operation["summary"])
        vms = (await world.get("/vms"))["items"]
        return make_report(incident, cut_at, vms, await counted())


async def _until_warm(world: World) -> None:
    """Wait until the monitor has heard every host, so that the cut is what it reacts to."""
    await _until(lambda: _all_heard(world), "the monitor hears every host", 60)


async def _all_heard(world: World) -> bool:
    return all(host["last_answer_at"] for host in (await world.get("/hosts"))["items"])


async def _until(condition: Any, what: str, limit_s: float) -> None:
    end = asyncio.get_running_loop().time() + limit_s
    while not await condition():
        if asyncio.get_running_loop().time() > end:
            raise DemoFailed("DEMO_STUCK", f"not within {limit_s:.0f} s: {what}")
        await asyncio.sleep(0.1)


async def _follow(world: World, say: _Teller) -> dict[str, Any]:
    """Tell what happens until the incident is closed; the incident."""
    shown: set[tuple[str, str, str]] = set()
    cursor = (await _newest(world)) or 0
    incident_id: str | None = None

    async def closed() -> bool:
        nonlocal cursor, incident_id
        cursor = await _tell_events(world, say, cursor)
        for item in (await world.get("/incidents"))["items"]:
            incident_id = item["id"]
            if item["operation_id"]:
                tree = await world.get(f"/operations/{item['operation_id']}")
                _tell_steps(tree, say, shown)
            return not item["open"]
        return False

    await _until(closed, "the incident is closed", RECOVERY_LIMIT_S)
    incident: dict[str, Any] = await world.get(f"/incidents/{incident_id}")
    return incident


async def _newest(world: World) -> int:
    cursor = 0
    while items := (await world.get("/events", after=cursor, limit=500))["items"]:
        cursor = items[-1]["seq"]
    return cursor


async def _tell_events(world: World, say: _Teller, cursor: int) -> int:
    for event in (await world.get("/events", after=cursor))["items"]:
        cursor = event["seq"]
        data = event["data"]
        name = data.get("name") or data.get("host", "")
        rest = data.get("why") or data.get("summary") or ""
        when = datetime.fromisoformat(event["at"])
        say.at(when, f"[bold]{event['type']}[/bold] {name}  {rest}")
    return cursor


def _tell_steps(tree: dict[str, Any], say: _Teller, shown: set[tuple[str, str, str]]) -> None:
    for step in tree["steps"]:
        key = (tree["id"], step["id"], step["state"])
        if step["finished_at"] and key not in shown:
            shown.add(key)
            detail = (step["problem"] or {}).get("detail") or step["detail"] or ""
            when = datetime.fromisoformat(step["finished_at"])
            say.at(when, f"  {step['name']} {tree['target_name']}: {step['state']}  {detail}")
    for child in tree["children"]:
        _tell_steps(child, say, shown)


async def _until_interrupted(engine: Engine, console: Console) -> None:
    console.print(addresses(engine))
    console.print("everything keeps running; Ctrl-C ends it")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    await stop.wait()
