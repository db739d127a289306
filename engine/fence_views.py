"""How the fence devices of a host work together, as people and programs read it."""

from domain.base import Frozen


class FenceLevelView(Frozen):
    """The longest that one level of a host's fence may take, over all of its tries."""

    level: int
    devices: int
    budget_s: float


class HostFencingView(Frozen):
    """The longest that a fence of a host may take, as its devices stand, and what is allowed.

    `silence_s`: how long the host is silent, at the most, before its fence begins.
    `blocks_on_power_loss`: no device could prove it off once it has lost its supply, so that its
    recovery would wait for a person.
    """

    budget_s: float
    limit_s: float
    silence_s: float = 0.0
    levels: tuple[FenceLevelView, ...]
    blocks_on_power_loss: bool
