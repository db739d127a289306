"""`holdfast incident`: one host failure, told from the last answer to the last VM back."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.failures import Exit, Json, failure
from cli.nouns.audit import When
from cli.nouns.explanation import tell_explanation
from cli.nouns.incident_stats import tell_stats
from cli.render import (
    clock,
    lasting,
    parsed,
    precise,
    print_facts,
    print_json,
    print_line,
    print_table,
)
from cli.session import Session, queries
from cli.values import as_id

if TYPE_CHECKING:
    from cli.client import Api

app = typer.Typer(help="Incidents: failures of hosts.", no_args_is_help=True)

PHASES = ("detect", "decide", "prove", "place", "start", "ready")
MEANING = {
    "detect": "from the last answer to the report",
    "decide": "judge: is it dead, may its power be cut",
    "prove": "read the power as off",
    "place": "choose hosts, reserve memory",
    "start": "until the last VM runs",
    "ready": "close the incident",
}


@app.command("list")
@queries
def list_(
    session: Session,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
) -> None:
    """List incidents, newest first."""
    page = session.api.get("/incidents", limit=limit)
    if session.as_json:
        return print_json(page)
    rows = [
        (
            item["id"],
            item["host_name"],
            item["outcome"] or f"open: {item['phase']}",
            clock(item["opened_at"]),
            _lasted(item),
            item["why"],
        )
        for item in page["items"]
    ]
    return print_table(("ID", "HOST", "STATE", "OPENED", "TOOK", "WHY"), rows, empty="no incidents")


def _lasted(incident: Json) -> str:
    opened, closed = parsed(incident["opened_at"]), parsed(incident["closed_at"])
    return "-" if opened is None or closed is None else lasting((closed - opened).total_seconds())


@app.command()
@queries
def show(
    session: Session,
    incident: Annotated[
        str, typer.Argument(metavar="INCIDENT", help="Id of an incident, or a host: its newest.")
    ],
) -> None:
    """Tell one incident as a report: why, evidence, certificate, phases, VMs."""
    found = session.api.get(f"/incidents/{_find_id(session.api, incident)}")
    if session.as_json:
        return print_json(found)
    _tell_summary(found)
    _tell_soft_steps(found["soft_steps"])
    _tell_evidence(found)
    _tell_certificate(found["certificate"])
    _tell_phases(found)
    return _tell_vms(found)


@app.command()
@queries
def explain(
    session: Session,
    incident: Annotated[
        str, typer.Argument(metavar="INCIDENT", help="Id of an incident, or a host: its newest.")
    ],
) -> None:
    """Say why each decision of an incident came out as it did, and why nothing else."""
    told = session.api.get(f"/incidents/{_find_id(session.api, incident)}/explanation")
    if session.as_json:
        return print_json(told)
    return tell_explanation(told)


@app.command()
@queries
def stats(
    session: Session,
    cluster: Annotated[str | None, typer.Option(help="Only those of this cluster.")] = None,
    since: When = None,
) -> None:
    """Tell what closed incidents took, phase by phase, and how many VMs were back in time.

    Without --since it is about the last 30 days.
    Example: holdfast incident stats --cluster lab --since 90d
    """
    found = session.api.get(
        "/incidents/stats",
        cluster_id=cluster and session.api.find("cluster", cluster)["id"],
        since=since and since.isoformat(),
    )
    return print_json(found) if session.as_json else tell_stats(found)


@app.command()
@queries
def verify(session: Session) -> None:
    """Check that every death certificate is what it was when it was issued."""
    found = session.api.get("/incidents/certificates/chain")
    if session.as_json:
        return print_json(found)
    if not found["whole"]:
        raise failure(
            Exit.FAILED,
            "CHAIN_BROKEN",
            found["broken"],
            next_step="somebody has changed the database: compare it with a backup",
        )
    last = f"; the last digest is {found['last_digest']}" if found["last_digest"] else ""
    return print_line(f"{found['certificates']} certificates, the chain is whole{last}")


def _find_id(api: "Api", named: str) -> str:
    known = as_id(named)
    if known is not None:
        return known
    host = api.find("host", named)
    for item in api.get("/incidents", host_id=host["id"], limit=1)["items"]:
        return str(item["id"])
    raise failure(
        Exit.NOT_FOUND,
        "INCIDENT_NOT_FOUND",
        f"{host['name']} has had no incident",
        next_step="holdfast incident list",
        host=host["name"],
    )


def _tell_soft_steps(steps: list[Json]) -> None:
    if not steps:
        return
    print_line()
    rows = [
        (
            precise(step["at"]),
            "engine" if step["automatic"] else "person",
            step["outcome"] or "under way",
            step["detail"],
        )
        for step in steps
    ]
    print_table(("LIBVIRTD RESTARTED BEFORE IT", "BY", "OUTCOME", "WHY"), rows)


def _tell_summary(found: Json) -> None:
    back = [vm for vm in found["vms"] if vm["recovery_s"] is not None]
    slowest = max((vm["recovery_s"] for vm in back), default=None)
    print_line(f"Incident {found['id']}")
    decision = found["decision"] or {}
    print_facts(
        (
            ("host", f"{found['host_name']} (epoch {found['epoch']})"),
            ("state", f"open: {found['phase']}" if found["open"] else found["outcome"]),
            ("why", found["why"]),
            ("decision", decision.get("move") and f"{decision['move']}: {decision['why']}"),
            ("date", clock(found["opened_at"])[:10]),
            ("last answer", found["last_answer_at"] and precise(found["last_answer_at"])),
            ("reported", f"{precise(found['opened_at'])} by {found['reported_by']}"),
            ("reports", found["reports"] if found["reports"] > 1 else None),
            ("closed", found["closed_at"] and precise(found["closed_at"])),
            ("VMs back", f"{len(back)} of {len(found['vms'])}" if found["vms"] else None),
            ("slowest VM", slowest and lasting(slowest)),
            ("operation", found["operation_id"]),
        ),
        indent="  ",
    )


def _tell_evidence(found: Json) -> None:
    print_line()
    if not found["evidence"]:
        return print_line("Evidence: none")
    print_line("Evidence")
    rows = [
        (
            fact["kind"],
            fact["device"],
            _said(fact),
            precise(fact["at"]),
            lasting(fact["took_s"]),
        )
        for fact in found["evidence"]
    ]
    return print_table(("KIND", "DEVICE", "SAID", "AT", "ANSWERED IN"), rows)


def _tell_certificate(certificate: Json | None) -> None:
    print_line()
    if certificate is None:
        return print_line("Death certificate: none; nothing may start elsewhere")
    proofs = [_told(fact) for fact in certificate["evidence"]]
    print_line("Death certificate")
    return print_facts(
        (
            ("state", certificate["state"]),
            ("issued", precise(certificate["issued_at"])),
            ("grade", certificate["grade_told"]),
            ("rests on", "; ".join(proofs)),
            ("starts under it", certificate["uses"]),
            ("voided", certificate["voided_at"] and precise(certificate["voided_at"])),
            ("because", certificate["void_reason"]),
            ("number", certificate["number"]),
            ("digest", certificate["digest"]),
            ("follows", certificate["previous"]),
        ),
        indent="  ",
    )


def _tell_phases(found: Json) -> None:
    print_line()
    print_line("Phases")
    spent, began = found["phases_s"], found["phase_began"]
    rows = [
        (
            phase,
            precise(began[phase]),
            f"{spent[phase]:.3f} s" if phase in spent else "under way",
            MEANING[phase],
        )
        for phase in PHASES
        if phase in began
    ]
    print_table(("PHASE", "BEGAN", "TOOK", "WHAT"), rows, empty="not begun")
    if spent:
        print_line(f"together {sum(spent.values()):.3f} s")


def _tell_vms(found: Json) -> None:
    print_line()
    if not found["vms"]:
        return print_line("VMs: none ran there, or none is settled yet")
    print_line("VMs")
    rows = [
        (
            vm["name"],
            vm["protected"],
            vm["host_before"],
            vm["host_after"],
            precise(vm["running_again_at"]),
            "-" if vm["recovery_s"] is None else f"{vm['recovery_s']:.3f} s",
        )
        for vm in found["vms"]
    ]
    return print_table(("VM", "PROTECTED", "BEFORE", "AFTER", "RUNS AGAIN", "RECOVERY"), rows)


def _told(fact: Json) -> str:
    if fact["kind"] == "confirmation":
        return f"{fact['device']} said {_said(fact)}"
    if fact["kind"] == "storage_lease":
        return f"{fact['device']}: {fact['detail']}"
    return f"{fact['device']} read {fact['verdict']}"


def _said(fact: Json) -> str:
    return (
        f"{fact['verdict']}: {fact['detail']}"
        if fact["kind"] in ("confirmation", "storage_lease")
        else fact["verdict"]
    )
