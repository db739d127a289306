"""The toys that are played in both worlds, and what is done to them meanwhile."""

from dataclasses import dataclass
from typing import Any

from temporalio.workflow import ActivityCancellationType

from tests.simulator.toy_steps import Order
from tests.simulator.toys import (
    Closing,
    Counter,
    Kept,
    KidOrder,
    OneStep,
    Parent,
    ParentOrder,
    Sequence,
    Timers,
)

WAITS = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
Deed = tuple[float, str, str, tuple[Any, ...]]
"""When, `signal`, `update` or `cancel`, its name, and what with."""


@dataclass(frozen=True)
class Toy:
    """One workflow to run in both worlds, and what is done to it meanwhile."""

    name: str
    workflow: Any
    arguments: tuple[Any, ...]
    deeds: tuple[Deed, ...] = ()


BAD = {"type": "Bad", "final": True}
QUICK: dict[str, Any] = {"first_s": 0.2, "coefficient": 1}

TOYS = (
    Toy("a step tried again", OneStep, (Order(step="toy.flaky", value=3, **QUICK),)),
    Toy("tries at an end", OneStep, (Order(step="toy.flaky", value=9, tries=2, **QUICK),)),
    Toy("a final failure", OneStep, (Order(step="toy.fails", value=BAD),)),
    Toy(
        "details sent with a failure",
        OneStep,
        (
            Order(
                step="toy.beats",
                value={"until": 5, "fail_at": 3, "every_s": 0.01},
                start_to_close_s=20,
                heartbeat_s=10,
                **QUICK,
            ),
        ),
    ),
    Toy(
        "a delay that is asked for is cut",
        OneStep,
        (Order(step="toy.fails", value={"delay_s": 50}, tries=2, most_s=1),),
    ),
    Toy(
        "a limit passed", OneStep, (Order(step="toy.sleeps", value=9, start_to_close_s=1, tries=1),)
    ),
    Toy(
        "no time for another try",
        OneStep,
        (Order(step="toy.flaky", value=9, first_s=20, schedule_to_close_s=15),),
    ),
    Toy(
        "no time at all",
        OneStep,
        (Order(step="toy.sleeps", value=20, start_to_close_s=18, schedule_to_close_s=5),),
    ),
    Toy("never taken", OneStep, (Order(queue="nobody", schedule_to_start_s=1),)),
    Toy("no beats", OneStep, (Order(step="toy.sleeps", value=5, heartbeat_s=1, tries=1),)),
    Toy(
        "a cancel that is only tried",
        OneStep,
        (
            Order(
                step="toy.stubborn", value=9, start_to_close_s=20, heartbeat_s=8, cancel_after_s=1
            ),
        ),
    ),
    Toy(
        "a cancel that is waited for",
        OneStep,
        (
            Order(
                step="toy.beats",
                value={"until": 60, "every_s": 0.2},
                start_to_close_s=20,
                heartbeat_s=8,  # a busy machine beats late
                cancellation=WAITS,
                cancel_after_s=1,
            ),
        ),
    ),
    Toy(
        "a cancel that comes to nothing",
        OneStep,
        (
            Order(
                step="toy.stubborn",
                value=12,
                start_to_close_s=30,
                heartbeat_s=8,
                cancellation=WAITS,
                cancel_after_s=1,
            ),
        ),
    ),
    Toy(
        "a local step tried again",
        OneStep,
        (Order(step="toy.flaky", value=3, local=True, **QUICK),),
    ),
    Toy(
        "a local step that waits long",
        OneStep,
        (Order(step="toy.flaky", value=3, local=True, threshold_s=0.1, **QUICK),),
    ),
    Toy(
        "a local step fails",
        OneStep,
        (Order(step="toy.flaky", value=9, tries=2, local=True, **QUICK),),
    ),
    Toy(
        "a local step finally fails",
        OneStep,
        (Order(step="toy.fails", value=BAD, local=True),),
    ),
    Toy(
        "a local step takes too long",
        OneStep,
        (Order(step="toy.sleeps", value=9, start_to_close_s=1, tries=1, local=True),),
    ),
    Toy(
        "a local step is cancelled",
        OneStep,
        (Order(step="toy.sleeps", value=12, start_to_close_s=20, cancel_after_s=0.2, local=True),),
    ),
    Toy(
        "a local step is cancelled and waited for",
        OneStep,
        (
            Order(
                step="toy.sleeps",
                value=12,
                start_to_close_s=20,
                cancel_after_s=0.2,
                cancellation=WAITS,
                local=True,
            ),
        ),
    ),
    Toy("everything in turn", Sequence, (2,)),
    Toy("timers", Timers, (), ((8, "signal", "knock", ()),)),
    Toy("a child", Parent, (ParentOrder(kid=KidOrder(value="well", again=1)),)),
    Toy("a child fails", Parent, (ParentOrder(kid=KidOrder(fails=True)),)),
    Toy("a child is cancelled", Parent, (ParentOrder(kid=KidOrder(sleep_s=20), cancel_after_s=1),)),
    Toy(
        "messages",
        Counter,
        (Kept(),),
        (
            (0.5, "signal", "add", (4,)),
            (1.0, "update", "raise_by", (3,)),
            (2.0, "update", "raise_by", (-3,)),
            (2.5, "update", "raise_by", (13,)),
            (3.5, "signal", "end", ()),
        ),
    ),
    Toy(
        "going on as new",
        Counter,
        (Kept(again_at=3),),
        ((0.5, "signal", "add", (4,)), (2.0, "signal", "end", ())),
    ),
    Toy("cancelled from outside", Closing, (), ((0.3, "cancel", "", ()),)),
)
