"""Tells decisions as a short report, each with what spoke against the rest."""

from typing import Any

from cli.failures import Json
from cli.render import clock, lasting, parsed, precise, print_line

QUESTIONS = {
    "host_fate": "Is {} dead, and what follows?",
    "host_proof": "What proves that {} is dead?",
    "vm_fate": "Does {} come back?",
    "guest_fate": "What becomes of {}?",
    "vm_place": "Where does {} start?",
    "vm_target": "Where does {} move to?",
    "make_room": "Who is stopped to make room for {}?",
}

RULES = {
    "LIFE_WINS": "a host that answers is not moved, whatever else is said of it",
    "PROOF_NEEDS_NO_CUT": "power that reads off is proof enough",
    "WORD_OF_A_PERSON": "somebody looked, and no channel contradicts",
    "GUARD_HOLDS": "the storm guard has a reason to wait",
    "SILENT_AND_ALLOWED": "the host is silent, and nothing speaks against cutting its power",
    "WATCHDOG_HAS_FIRED": "its storage lease ran out, and its watchdog has reset it since",
    "EVERY_PROOF_AGREES": "read off as often as is wanted, and on by none",
    "WANTED_AND_PROTECTED": "what ran and is protected comes back",
    "NOT_WANTED": "what somebody wanted down stays down",
    "STOP_ASKED": "a stop that was under way is done",
    "NOT_PROTECTED": "only what is protected is brought back without a person",
    "GUEST_RUNS": "it was found at work when it was looked at",
    "DISARMED": "nothing is done by itself while its cluster is disarmed",
    "MAY_LIVE_ELSEWHERE": "what somebody moved, saved or started by hand is not touched",
    "RESTARTS_SPENT": "what fails again and again is not started without end",
    "PAUSE_LOSES_NOTHING": "a paused guest goes on where it stood once its disk answers",
    "VM_POLICY": "what the VM itself says of guests that end, hang or are paused",
    "BEST_HOST": "the best of the hosts that hard rules and room allow",
    "HOST_NAMED": "whoever asked named the host, and it has room",
    "NO_HOST": "hard rules and memory leave no host now",
    "RUNS_ELSEWHERE": "what a host shows already is not started a second time",
    "WAITS_FOR_OTHERS": "what a VM depends on comes back first, and may need the room",
    "LEAST_LOSS": "the least important VMs whose end makes room on one host",
    "NOBODY_TO_STOP": "no host would have room without those that may be stopped",
}


def tell_explanation(told: Json) -> None:
    """Print it: when, the question, the choice and its rule, what it rested on, what was not."""
    print_line(f"Incident {told['incident_id']}")
    state = told["outcome"] or "still open"
    print_line(
        f"{told['host_name']} (epoch {told['epoch']}) was reported at "
        f"{clock(told['opened_at'])}: {told['why']}; {state}"
    )
    _tell_all(told, "No decision is kept: it was not judged yet, or by an earlier version.")


def tell_operation(told: Json) -> None:
    """Print what was asked and what became of it, then each decision as of an incident."""
    print_line(f"Operation {told['operation_id']}")
    reason = f" ({told['reason']})" if told["reason"] else ""
    became = told["waiting_for"] or told["summary"]
    state = f"{told['state']}, {became}" if became else told["state"]
    print_line(
        f"{told['kind']} {told['target_name']} was asked for by {told['principal']} at "
        f"{clock(told['created_at'])}{reason}; {state}"
    )
    if told["incident_id"]:
        print_line(f"part of an incident: `holdfast incident explain {told['incident_id']}`")
    _tell_all(
        told, "No decision is kept: it had nothing to choose, or not yet, or in an earlier version."
    )


def _tell_all(told: Json, none: str) -> None:
    for decision in told["decisions"]:
        print_line()
        _tell(decision)
    if not told["decisions"]:
        print_line()
        print_line(none)


def _tell(decision: Json) -> None:
    name, rule = decision["subject_name"], decision["rule"]
    # An engine that is newer than its client may know more questions and rules.
    question = QUESTIONS.get(decision["question"], f"{decision['question']} {{}}").format(name)
    print_line(f"{precise(decision['first_at'])}  {question}")
    print_line(f"  {decision['chosen']}: {decision['why']}")
    print_line(f"  rule     {': '.join([rule, RULES[rule]] if rule in RULES else [rule])}")
    if decision["times"] > 1:
        print_line(f"  taken    {decision['times']} times in a row{_over(decision)}")
    if decision["question"] in FACTS:
        rests = "; ".join(FACTS[decision["question"]](decision["inputs"]))
        print_line(f"  rests on {rests}")
    for rejected in decision["rejected"]:
        print_line(f"  not {rejected['option']}: {rejected['why']}")
    if decision["rejected_more"]:
        print_line(f"  nor {decision['rejected_more']} more, for reasons like these")


def _over(decision: Json) -> str:
    first, last = parsed(decision["first_at"]), parsed(decision["last_at"])
    return (
        "" if first is None or last is None else f", over {lasting((last - first).total_seconds())}"
    )


def _of_host(inputs: Json) -> list[str]:
    votes = ", ".join(_vote(vote) for vote in inputs["votes"]) or "no live monitor"
    said = ", ".join(f"level {r['level']} {r['verdict']}" for r in inputs["readings"])
    facts = [
        f"votes: {votes}",
        f"power: {said or 'no device'} ({_proofs(inputs['proofs_required'])})",
        f"{inputs['hosts_silent']} of {inputs['hosts']} hosts silent",
        *_budgets(inputs),
        "armed" if inputs["armed"] else "disarmed",
        f"profile {inputs['profile']}",
    ]
    if inputs["own_host"]:
        facts.append("the engine itself runs there")
    if inputs.get("approved_by"):
        facts.append(f"approved by {inputs['approved_by']}")
    if inputs["confirmed_by"]:
        facts.append(f"the word of {inputs['confirmed_by']}")
    return facts


def _budgets(inputs: Json) -> list[str]:
    """Budgets that limit anything; a decision from before there were several names the one."""
    if "budgets" not in inputs:
        spent, limit = inputs["fences_in_window"], inputs["fences_per_window"]
        return [f"{spent} of {limit} fences spent in {inputs['window_s']:.0f} s"]
    told = [
        f"{one['spent']} of {one['limit']} fences spent in {one['scope']} {one['name']} in "
        f"{one['window_s']:.0f} s"
        for one in inputs["budgets"]
        if one["limit"] is not None
    ]
    return [*told, inputs["silent_domain"]] if inputs["silent_domain"] else told


def _proofs(wanted: int) -> str:
    return "one proof is wanted" if wanted == 1 else f"{wanted} proofs are wanted"


def _vote(vote: Json) -> str:
    heard = "silent" if vote["silent"] else "heard"
    doubts = [word for word, so in (("old", not vote["fresh"]), ("cold", not vote["warm"])) if so]
    return f"{vote['monitor']} {' '.join([heard, *doubts])}, sees {vote['others_seen']} others"


def _of_place(inputs: dict[str, Any]) -> list[str]:
    protected = "protected" if inputs["protected"] else "not protected"
    return [
        f"{_size(inputs)} wanted",
        f"{inputs['hosts']} usable hosts",
        f"priority {inputs['priority']}, {protected}",
    ]


def _of_target(inputs: Json) -> list[str]:
    return [f"it runs on {inputs['from']}", *_of_place(inputs)]


def _size(vm: Json) -> str:
    """Its memory, and its vCPUs unless that was decided before they counted."""
    vcpus = f" and {vm['vcpus']} vCPUs" if "vcpus" in vm else ""
    return f"{vm['memory_mib']} MiB{vcpus}"


def _of_proof(inputs: Json) -> list[str]:
    said = [
        f"{fact['device']} {fact['verdict']} after {fact['took_s']:.1f} s"
        for fact in inputs["evidence"]
    ]
    # A certificate from before there were grades is named by its rule alone.
    grade = [f"grade: {inputs['grade']}"] if inputs.get("grade") else []
    return [*grade, *said, f"certificate {inputs['certificate']}"]


def _of_fate(inputs: Json) -> list[str]:
    protected = "protected" if inputs["protected"] else "not protected"
    facts = [f"it was {inputs['run_state']}", f"priority {inputs['priority']}, {protected}"]
    if inputs["turn"]:
        facts.append(f"{inputs['turn']} of {inputs['turns']} in the order of starts")
    if inputs["starts_after"]:
        facts.append(f"behind {', '.join(inputs['starts_after'])}")
    return facts


def _of_room(inputs: Json) -> list[str]:
    stopped = [
        f"{vm['name']}: priority {vm['priority']}, {_size(vm)}"
        f"{', protected' if vm['protected'] else ''}"
        for vm in inputs["stopped"]
    ]
    wanted = f"{_size(inputs)} wanted at priority {inputs['priority']}"
    return [wanted, f"at most {inputs['may_be_stopped_at_most']} may be stopped", *stopped]


def _of_guest(inputs: Json) -> list[str]:
    if "guest" not in inputs:
        return ["a reading of its own host"]
    seen = f"its guest is {inputs['guest']} on {inputs['host']}"
    wanted = "wanted" if inputs["wanted"] else "not wanted"
    protected = "protected" if inputs["protected"] else "not protected"
    policies = ("on_guest_shutdown", "on_io_error", "on_hang")
    facts = [
        f"{seen}, as libvirt says: {inputs['reason'] or 'unknown to it'}",
        f"{wanted}, {protected}",
        ", ".join(f"{name} {inputs[name]}" for name in policies),
        f"{inputs['restarts']} restarts in {inputs['window_s']:.0f} s, {inputs['restarts_there']} "
        f"of {inputs['max_restart']} there, {inputs['max_relocate']} other hosts at most",
        f"{inputs['hosts']} usable hosts",
        "armed" if inputs["armed"] else "disarmed",
    ]
    if inputs["paused_s"]:
        facts.append(f"paused for {inputs['paused_s']:.0f} s")
    if inputs["shown_on"]:
        facts.append(f"shown on {', '.join(inputs['shown_on'])}")
    return facts


FACTS = {
    "host_fate": _of_host,
    "host_proof": _of_proof,
    "vm_fate": _of_fate,
    "guest_fate": _of_guest,
    "vm_place": _of_place,
    "vm_target": _of_target,
    "make_room": _of_room,
}
