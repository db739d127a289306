"""Every time-out, retry, queue and priority of every step, in one table.

Durations that a site may want to change come from the policy in the workflow's input; what stands
here as a number is a property of the step. Priority is not repeated: a step inherits its
workflow's. Every step on the failover path has a heartbeat limit, so that a worker that died is
noticed within seconds; the beats come from the worker's interceptor.
"""

from datetime import timedelta

from temporalio.common import RetryPolicy
from temporalio.workflow import (
    ActivityCancellationType,
    ActivityConfig,
    LocalActivityConfig,
)

from domain.profiles import Policy
from domain.topology import RETRY_FIRST_S, RETRY_MAX_S

OPERATIONS = "operations"
FENCING = "fencing"

BEAT = timedelta(seconds=5)
"""Heartbeat limit. Higher: a dead worker's step is taken over later. Lower: a starved one is."""

TASK = timedelta(seconds=5)
"""Workflow task limit: how long a task handed to a dead worker blocks its workflow."""

RECORD = LocalActivityConfig(
    start_to_close_timeout=timedelta(seconds=15),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=100), maximum_interval=timedelta(seconds=5)
    ),
    local_retry_threshold=timedelta(seconds=2),
)
"""Claim, wait, close: short transactions, repeated until the database takes them."""

PERSIST = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    maximum_interval=timedelta(seconds=5),
)
"""For steps that only wait for the engine's own parts: repeated until refused."""


def decide(summary: str) -> ActivityConfig:
    """Steps that read or write the engine's own tables and decide."""
    return _step(summary, OPERATIONS, 60, PERSIST)


def guest(policy: Policy, summary: str) -> ActivityConfig:
    """One call on one guest's host."""
    return _step(
        summary, OPERATIONS, policy.start_deadline_s + 10, _tries(5, first_ms=300, last_s=3)
    )


def give_up(policy: Policy, summary: str) -> ActivityConfig:
    """Undoing a start: tried longer than the start itself, since leaving it half done is worse."""
    return _step(summary, OPERATIONS, policy.start_deadline_s + 10, _tries(20))


def ready(within_s: float, summary: str) -> ActivityConfig:
    """Waiting until a VM is ready. Repeated, it goes on counting from when the VM began to run."""
    return _step(summary, OPERATIONS, within_s + 60, _tries(5))


def await_off(policy: Policy, summary: str) -> ActivityConfig:
    """Waiting for a guest to end within its grace."""
    return _step(summary, OPERATIONS, policy.stop_grace_s + 30, _tries(5, first_ms=300, last_s=3))


def migrate(policy: Policy, summary: str) -> ActivityConfig:
    """Moving a guest: as long as libvirt may take. Repeated, it follows what is under way."""
    return _step(summary, OPERATIONS, policy.migrate_deadline_s + 60, _tries(3))


def settle(policy: Policy, summary: str) -> ActivityConfig:
    """Reading both hosts of a migration, each of which may be silent for its whole deadline."""
    return _step(summary, OPERATIONS, 8 * policy.connect_deadline_s + 60, _tries(5))


def look(policy: Policy, summary: str) -> ActivityConfig:
    """Reading power controllers. Their silence is an answer: only our own trouble is retried."""
    return _step(summary, FENCING, _fence_limit_s(policy, policy.off_read_back_s + 20), PERSIST)


def fence(policy: Policy, summary: str) -> ActivityConfig:
    """Cutting power and reading it back. A cancelled fence still reports what it did."""
    limit_s = _fence_limit_s(policy, policy.off_read_back_s + 30)
    first_ms, last_s = int(1000 * RETRY_FIRST_S), int(RETRY_MAX_S)
    return _step(
        summary, FENCING, limit_s, _tries(policy.fence_tries, first_ms=first_ms, last_s=last_s)
    )


def bring_back(policy: Policy, summary: str) -> ActivityConfig:
    """Switching a host on again that was cut on purpose: as long as a boot takes, and once more."""
    limit_s = _fence_limit_s(policy, policy.power_on_answer_s + 60)
    return _step(summary, FENCING, limit_s, _tries(3))


def switch(policy: Policy, summary: str) -> ActivityConfig:
    """Switching the power of an empty host by plan, and reading it back."""
    limit_s = _fence_limit_s(policy, policy.off_read_back_s + 30)
    return _step(summary, FENCING, limit_s, _tries(policy.fence_tries))


def _fence_limit_s(policy: Policy, least_s: float) -> float:
    """No step of a fence takes longer than a whole fence may; see `domain.topology`."""
    return max(least_s, policy.fence_limit_s or 0.0)


def host(policy: Policy, summary: str) -> ActivityConfig:
    """Bringing a host into service: as long as a boot takes."""
    return _step(summary, OPERATIONS, policy.power_on_answer_s + 60, _tries(5))


def soft(policy: Policy, summary: str) -> ActivityConfig:
    """Restarting a libvirtd over SSH, or reading it back, with a look before and after."""
    limit_s = max(policy.soft_restart_s, policy.soft_answer_s) + 4 * policy.connect_deadline_s + 10
    return _step(summary, OPERATIONS, limit_s, _tries(2))


def _step(summary: str, queue: str, limit_s: float, retry: RetryPolicy) -> ActivityConfig:
    return ActivityConfig(
        summary=summary,
        task_queue=queue,
        start_to_close_timeout=timedelta(seconds=limit_s),
        heartbeat_timeout=BEAT,
        retry_policy=retry,
        # What a cancelled step did is known only once it has ended.
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def _tries(most: int, *, first_ms: int = 500, last_s: int = 5) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=timedelta(milliseconds=first_ms),
        maximum_interval=timedelta(seconds=last_s),
        maximum_attempts=most,
    )


def seconds(value: float) -> timedelta:
    """A duration of the policy as Temporal wants it."""
    return timedelta(seconds=value)
