"""Whether a copy of a VM on a host where it should not run may be ended, or become its run.

Pure: both hosts were just read. A copy without our mark is never touched, nor one that is newer
than the books. The copy that may be the VM's only one is ended only by somebody who says so; and
one becomes the VM's run only if it is the one that lives, and stays where it is.
"""

from domain.base import Frozen
from domain.errors import Conflict, Refused
from domain.readings import Domain, DomainState


class CopyFacts(Frozen):
    """What both hosts said of a VM, and what its books say.

    `there` is what the host of the copy has of it, `own` what its run's host has; None: nothing.
    `elsewhere` are further hosts whose last poll showed a process of the VM, `no_room` says why the
    host of the copy may not have it in the books: memory, or a hard rule.
    """

    vm: str
    host: str
    there: Domain | None
    newest: int  # the newest generation that the VM was given
    own_host: str | None = None  # None: it should run nowhere
    own: Domain | None = None
    run_generation: int | None = None
    may_end_last: bool = False  # a person says that the last copy may be ended
    leaves: bool = False  # libvirt is moving the copy away from its host
    elsewhere: tuple[str, ...] = ()
    no_room: str = ""

    @property
    def own_runs(self) -> bool:
        """Whether the copy that the books know was read as running.

        A paused one is not: it may have been moved away by hand, and never go on.
        """
        own = self.own
        if own is None or own.state is DomainState.PAUSED:
            return False
        return own.alive and own.generation == self.run_generation


def refuse_copy(facts: CopyFacts) -> Refused | None:
    """Why this copy is not ended, or None; the mark comes before everything else."""
    copy = facts.there
    if copy is None:
        return _not_found(facts, "end", "nothing to do there")
    refused = _not_ours(facts, copy)
    if refused is not None:
        return refused
    if not facts.own_runs and not facts.may_end_last:
        return last_copy(facts.vm, facts.host, facts.own_host)
    return None


def refuse_adoption(facts: CopyFacts) -> Refused | None:
    """Why this copy does not become the VM's run, or None.

    Whatever may write to the disks is a living copy, paused or not, with our mark or without.
    """
    copy = facts.there
    if copy is None:
        return _not_found(facts, "adopt", "name the host on which it runs")
    against = (
        _not_ours(facts, copy),
        _not_at_home(facts, copy),
        _not_alone(facts),
        no_room(facts.vm, facts.host, facts.no_room) if facts.no_room else None,
    )
    return next((refused for refused in against if refused is not None), None)


def last_copy(vm: str, host: str, own_host: str | None) -> Conflict:
    """The refusal to end what may be the only copy of a VM."""
    why = "should run nowhere" if own_host is None else f"was not read as running on {own_host}"
    return Conflict(
        "LAST_COPY",
        f"{vm} {why}, so that its copy on {host} may be the only one",
        next_step=_may_be_adopted(vm, host, own_host)
        + "say `--last-copy` to end it all the same; the VM is then down",
        vm=vm,
        host=host,
    )


def no_room(vm: str, host: str, why: str) -> Conflict:
    """The refusal to let the books follow a VM to a host that may not have it."""
    return Conflict(
        "NO_ROOM",
        f"{vm} lives on {host}, which may not have it: {why}",
        next_step="make room there (`holdfast vm migrate` of another VM), or change the rule, and "
        "adopt it then; or move it back by hand",
        vm=vm,
        host=host,
    )


def _may_be_adopted(vm: str, host: str, own_host: str | None) -> str:
    """A VM that should run nowhere has no run that its copy could take over."""
    if own_host is None:
        return ""
    return f"`holdfast vm adopt-copy {vm} --host {host}` makes it the VM's run; "


def _not_found(facts: CopyFacts, verb: str, next_step: str) -> Conflict:
    return Conflict(
        "COPY_NOT_FOUND",
        f"{facts.host} knows no domain of {facts.vm}: there is no copy of it to {verb}",
        next_step=f"{next_step}; `holdfast vm show` tells where copies were seen",
        **_named(facts),
    )


def _not_ours(facts: CopyFacts, copy: Domain) -> Conflict | None:
    if copy.generation is None:
        return Conflict(
            "COPY_FOREIGN",
            f"the domain {copy.name} on {facts.host} has the UUID of {facts.vm} and not our mark: "
            "the engine touches no domain of others",
            next_step="find out whose it is, and end it by hand (`virsh destroy`)",
            **_named(facts),
        )
    if copy.generation > facts.newest:
        return Conflict(
            "COPY_NEWER",
            f"the copy of {facts.vm} on {facts.host} has generation {copy.generation}, the newest "
            f"in the books is {facts.newest}",
            next_step="somebody else started it, such as an engine on another database: ask there",
            **_named(facts),
        )
    return None


def _not_at_home(facts: CopyFacts, copy: Domain) -> Conflict | None:
    if not copy.alive:
        return Conflict(
            "COPY_NOT_RUNNING",
            f"{facts.host} has {facts.vm} defined, and it is {copy.state}: no copy lives there",
            next_step="name the host on which it runs; `holdfast vm show` tells where copies were "
            "seen",
            **_named(facts),
        )
    if copy.held or facts.leaves:
        return Conflict(
            "COPY_MOVES",
            f"libvirt is moving {facts.vm} to or from {facts.host}: where it ends up is not known",
            next_step="wait until it has arrived, then adopt it there",
            **_named(facts),
        )
    return None


def _not_alone(facts: CopyFacts) -> Conflict | None:
    vm, host, own = facts.vm, facts.host, facts.own
    if own is not None and own.alive:
        return Conflict(
            "COPY_DOUBLED",
            f"{vm} lives on {facts.own_host}, where it should ({own.state}, generation "
            f"{own.generation}), and on {host}: of two copies neither is adopted",
            next_step=f"find out which is wanted: `holdfast vm end-copy {vm} --host {host}` ends "
            f"the one there; to keep that one, end the other by hand (`virsh destroy` on "
            f"{facts.own_host}) and adopt it then",
            **_named(facts),
        )
    if facts.elsewhere:
        return Conflict(
            "COPY_DOUBLED",
            f"{vm} lives on {host}, and the last poll showed it on {', '.join(facts.elsewhere)}",
            next_step="end the one that is not wanted by hand (`virsh destroy`), or wait for the "
            "next poll; a host that is silent has to be settled first: `holdfast incident list`",
            **_named(facts),
        )
    return None


def _named(facts: CopyFacts) -> dict[str, str]:
    return {"vm": facts.vm, "host": facts.host}
