"""The end of every way back into service: settle a host's copies, then admit it or leave it out."""

from temporalio import workflow

from activities.hosts import AdmitOrder, FailOrder, Hosts, HostStep
from domain.orders import HostRef, Reconciliation
from workflows import options
from workflows.operation import go_on, to_its_end


async def settle_and_admit(step: HostStep) -> str:
    """Settle the copies on a host that is `reconciling`, and admit it; a sentence."""
    name = step.host.name
    settled = await workflow.execute_activity_method(
        Hosts.reconcile,
        step,
        **options.host(step.policy, f"settle the copies on {name}"),
    )
    go_on()
    epoch = await to_its_end(
        workflow.execute_activity_method(
            Hosts.admit,
            AdmitOrder(operation_id=step.operation_id, host=step.host, settled=settled),
            **options.decide(f"admit {name}"),
        )
    )
    return _sentence(name, epoch, settled)


async def leave_out(host: HostRef, why: str) -> None:
    """Leave a host that is `reconciling` out of service, saying why."""
    await workflow.execute_activity_method(
        Hosts.fail,
        FailOrder(host=host, why=why),
        **options.decide("leave the host out of service"),
    )


def _sentence(name: str, epoch: int, settled: Reconciliation) -> str:
    parts = [f"{name} is up with epoch {epoch}"]
    for word, names in (
        ("kept", settled.kept),
        ("destroyed old copies of", settled.destroyed),
        ("found gone", settled.ended),
        ("left alone", settled.foreign),
    ):
        if names:
            parts.append(f"{word} {', '.join(names)}")
    return "; ".join(parts)
