"""Which domains a host starts by itself at boot, past the engine, and what to do about it.

Pure. Such a start asks nobody: the VM may run on another host by then, and two would write to its
disk. Activation refuses the host, each poll warns of it, and nothing is fenced for it. Only domains
that carry our metadata count; what is foreign may start as it likes.
"""

from collections.abc import Iterable

KEPT_MAX = 1024
"""Characters that a host's row has for the names."""


def counts(*, autostart: bool, generation: int | None) -> bool:
    """Whether a domain is one of ours that its host starts by itself."""
    return autostart and generation is not None


def told(host: str, names: tuple[str, ...]) -> str:
    """What is wrong, as a sentence without its stop."""
    return f"{host} starts {', '.join(names)} by itself at boot, past the engine"


def next_step(host: str, names: tuple[str, ...]) -> str:
    """What a person does about it while the host is in service."""
    commands = ", ".join(f"`virsh autostart --disable {name}`" for name in names)
    return f"on {host}: {commands}; until then it could not be activated again"


def kept(names: Iterable[str]) -> str:
    """The names as a host's row keeps them; those that it has no room for are left out."""
    said = ""
    for name in sorted(set(names)):
        longer = f"{said}\n{name}" if said else name
        if len(longer) > KEPT_MAX:
            break
        said = longer
    return said


def names_in(said: str) -> tuple[str, ...]:
    """The names that a host's row keeps."""
    return tuple(said.split("\n")) if said else ()
