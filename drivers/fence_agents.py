"""Power switches of hosts through ClusterLabs fence agents, each call a process of its own.

Invariants  A verdict needs the agent's exit code and its words to agree; all else is `unknown`.
            (Exit code 2 alone is no "off": the agents also use it for bad arguments.)
            Only `status`, `off` and `on` are ever asked for, never `reboot` or `cycle`.
            No option value reaches argv, the environment, a log or an error; what an agent prints
            is cleaned of secrets before it is cut short.
Known       fence_ipmilan hands the password to ipmitool as an argument; ipmitool blanks it out as
            its first act.
"""

import asyncio
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import quote, quote_plus
from uuid import UUID

import structlog
from pydantic import SecretStr

from domain.errors import EngineError, Invalid, NoAnswer
from domain.inventory import FenceDevice, PowerReading
from drivers.fence_guid import guid_command, guids
from drivers.fence_metadata import AgentParameters, check_options, parse_metadata
from drivers.fence_process import Claim, Ended, run_contained
from drivers.fence_redfish import machines, speaks_redfish

SEARCH_PATH = ("/usr/sbin", "/usr/local/sbin", "/sbin")
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
AGENT_PATTERN = re.compile(r"fence_[a-z0-9_]+")
STATUS_LINE = re.compile(r"^Status: (ON|OFF)[ \t]*$", re.MULTILINE)
STATUS_BY_ANSWER = {(0, "ON"): PowerReading.ON, (2, "OFF"): PowerReading.OFF}
METADATA_DEADLINE_S = 5.0
TAIL_MAX = 300
"""Characters of an agent's last words that an error repeats."""

log = structlog.get_logger(__name__)
Secrets = Callable[[UUID], Awaitable[Mapping[str, SecretStr]]]


class FenceAgents:
    """Fits `PowerSwitch`. `secrets` gives the secret options of a device by its id."""

    def __init__(self, secrets: Secrets, search_path: tuple[str, ...] = SEARCH_PATH) -> None:
        self._secrets = secrets
        self._search_path = search_path
        self._env = {
            "PATH": ":".join((*search_path, *SYSTEM_PATH)),
            "LC_ALL": "C.UTF-8",
            "PYTHONWARNINGS": "ignore",  # Their deprecations would hide the reason of a failure.
        }
        self._parameters: dict[tuple[str, int], AgentParameters] = {}

    async def read(self, device: FenceDevice) -> PowerReading:
        """Ask for the power state within the device's deadline.

        Never raises for a device: whatever goes wrong, a missing agent included, is logged and
        reads `unknown`. `check` tells a wrong configuration apart.
        """
        try:
            ended = await self._call(device, "status")
        except EngineError as error:
            log.warning(
                "fence device cannot be read", device=device.name, code=error.code, why=error.detail
            )
            return PowerReading.UNKNOWN
        except Exception:
            # A defect must not end the fencing of a host: what cannot be read is no proof.
            log.exception("fence device cannot be read", device=device.name)
            return PowerReading.UNKNOWN
        return _verdict(ended)

    async def machine(self, device: FenceDevice) -> tuple[UUID, ...]:
        """The UUID of the machine that a BMC manages, in each byte order that BMCs use.

        Asked of IPMI or Redfish itself, since no agent tells it: empty for a device that speaks
        neither, or does not answer within its deadline. Never raises for a device.
        """
        try:
            async with asyncio.timeout(device.deadline_s):
                order = await self._prepared(device)
                if speaks_redfish(device.agent, order.options):
                    return await machines(order.options, order.secrets, device.deadline_s)
            if (command := guid_command(device.agent, order.options)) is None:
                return ()
            password = order.secrets.get("password", order.secrets.get("passwd", ""))
            return guids((await self._run(command, f"{password}\n", device.deadline_s)).stdout)
        except (EngineError, TimeoutError) as error:
            log.warning("fence device tells no machine", device=device.name, why=str(error))
            return ()

    async def off(self, device: FenceDevice, claim: Claim | None = None) -> None:
        """Send power off; off already is success. NoAnswer, or Invalid for a wrong device."""
        await self._switch(device, "off", claim)

    async def on(self, device: FenceDevice, claim: Claim | None = None) -> None:
        """Send power on; on already is success. NoAnswer, or Invalid for a wrong device."""
        await self._switch(device, "on", claim)

    async def check(self, device: FenceDevice) -> None:
        """Check agent and options without touching the device; Invalid says what is wrong."""
        await self._prepared(device)

    async def agent_parameters(self, agent: str) -> AgentParameters:
        """An agent's options by its own metadata, read once for each installed version.

        Invalid FENCE_AGENT_UNKNOWN when it is not installed; NoAnswer when it prints no metadata.
        """
        path = self._path_of(agent)
        key = (path, os.stat(path).st_mtime_ns)
        if key not in self._parameters:
            ended = await self._run([path, "-o", "metadata"], "", METADATA_DEADLINE_S)
            self._parameters[key] = parse_metadata(agent, ended.stdout)
        return self._parameters[key]

    def installed_agents(self) -> tuple[str, ...]:
        """The names of the agents on this machine."""
        found = {path.name for folder in self._search_path for path in Path(folder).glob("fence_*")}
        return tuple(sorted(name for name in found if AGENT_PATTERN.fullmatch(name)))

    async def _switch(self, device: FenceDevice, action: str, claim: Claim | None) -> None:
        ended = await self._call(device, action, claim)
        if ended.exit_code is None:
            raise NoAnswer(
                "FENCE_AGENT_SILENT",
                f"{device.agent} for {device.name}: {action} did not end within"
                f" {device.deadline_s:g} s and was killed",
                next_step="check that the power controller answers: holdfast fence test",
                device=device.name,
            )
        if ended.exit_code != 0:
            raise NoAnswer(
                "FENCE_AGENT_FAILED",
                f"{device.agent} for {device.name}: {action} ended with code {ended.exit_code}:"
                f" {ended.stderr[-TAIL_MAX:].strip() or 'it gave no reason'}",
                next_step="check address and password of the power controller",
                device=device.name,
            )

    async def _call(self, device: FenceDevice, action: str, claim: Claim | None = None) -> Ended:
        clock = asyncio.get_running_loop().time
        start = clock()
        try:
            async with asyncio.timeout(device.deadline_s):
                order = await self._prepared(device)
        except TimeoutError:
            detail = f"secrets or agent metadata of {device.name} did not come in time"
            raise NoAnswer("FENCE_AGENT_SILENT", detail, device=device.name) from None
        left_s = device.deadline_s - (clock() - start)
        ended = await self._run([order.path], order.stdin(action), left_s, claim)
        log.info(
            "fence agent ended",
            device=device.name,
            agent=device.agent,
            action=action,
            verdict=_verdict(ended).value if action == "status" else ended.exit_code == 0,
            exit_code=ended.exit_code,
            seconds=round(clock() - start, 3),
        )
        return replace(ended, stderr=_cleaned(ended.stderr, order.secrets.values()))

    async def _prepared(self, device: FenceDevice) -> "_Order":
        parameters = await self.agent_parameters(device.agent)
        sealed = await self._secrets(device.id)
        secrets = {name: value.get_secret_value() for name, value in sealed.items()}
        check_options(parameters, device.options, secrets)
        ours = {"method": "onoff", "power_wait": "0"}
        # Waiting after the command buys nothing: the agent polls, and the engine reads back.
        defaults = {name: value for name, value in ours.items() if name in parameters.names}
        return _Order(self._path_of(device.agent), {**defaults, **device.options}, secrets)

    async def _run(
        self, command: list[str], stdin: str, deadline_s: float, claim: Claim | None = None
    ) -> Ended:
        try:
            return await run_contained(command, stdin, self._env, deadline_s, claim)
        except OSError as error:
            raise NoAnswer(
                "FENCE_AGENT_FAILED",
                f"no fence agent can be started on this machine: {error}",
                next_step="install util-linux (setpriv, unshare)",
            ) from None

    def _path_of(self, agent: str) -> str:
        path = shutil.which(agent, path=":".join(self._search_path))
        if path and AGENT_PATTERN.fullmatch(agent):
            return path
        near = get_close_matches(agent, self.installed_agents(), n=3)
        raise Invalid(
            "FENCE_AGENT_UNKNOWN",
            f"fence agent {agent!r} is not installed on the engine's machine",
            next_step=f"did you mean {' or '.join(near)}?"
            if near
            else "install the package fence-agents, or the one that holds this agent",
            agent=agent,
        )


@dataclass(frozen=True)
class _Order:
    """What an agent is told. Its secrets are kept out of every printed form."""

    path: str
    options: Mapping[str, str] = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)

    def stdin(self, action: str) -> str:
        told = {"action": action, **self.options, **self.secrets}
        return "".join(f"{name}={_quoted(value)}\n" for name, value in told.items())


def _verdict(ended: Ended) -> PowerReading:
    words = set(STATUS_LINE.findall(ended.stdout))
    if len(words) != 1 or ended.exit_code is None:
        return PowerReading.UNKNOWN
    return STATUS_BY_ANSWER.get((ended.exit_code, words.pop()), PowerReading.UNKNOWN)


def _quoted(value: str) -> str:
    # The agents strip a line, and then one pair of quotes around the value.
    outer = value[:1] + value[-1:]
    return f'"{value}"' if outer.strip() != outer or outer == '""' else value


def _cleaned(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets, in the forms in which programs print them."""
    forms = {
        form
        for secret in secrets
        for form in (secret, secret.strip(), quote(secret), quote_plus(secret), repr(secret)[1:-1])
        if form
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text
