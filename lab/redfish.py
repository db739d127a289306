"""The Redfish controller of one host: OpenStack's emulator over HTTPS, one process a host.

It stands beside the host's IPMI controller (`lab.bmc`), with manners of its own (`redfish.mode`),
the same account, and a supply of its own: it answers while its host is dead and says `Off`.
`python -m lab.redfish FOLDER HOST` starts it. Its certificate is its own, as a board's is when it
leaves the factory, so clients have to be told not to check it.

ok       tells the truth.
lying    takes `ForceOff`, says Off from then on, and leaves the host running.
hanging  shows its root, but never answers a question about the system.
dead     (not ours to play: the process is stopped, see `lab.bmc_control`)

Invariants  Off reads as Off only when all of the host's processes are gone. A request that came
            while it hung is never carried out afterwards: its client has long given up.
"""

import logging
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import bcrypt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sushy_tools import error
from sushy_tools.emulator import main as emulator
from sushy_tools.emulator.resources.systems.base import AbstractSystemsDriver
from werkzeug.serving import make_server

from domain.errors import EngineError, NotFound
from lab import processes
from lab.bmc_control import BmcMode, Controller, mode_of, record_file
from lab.hosts import Host
from lab.state import LabState, Paths, host_named, load, write_private

ADDRESS = "127.0.0.1"
SYSTEMS = "/redfish/v1/Systems/"
HUNG_POLL_S = 0.05

CUT_WAIT_S = 5.0
"""How long a ForceOff may take. Its client reads back in any case."""

VALID = timedelta(days=3650)


class HostSystem(AbstractSystemsDriver):  # type: ignore[misc]  # sushy-tools has no types
    """The one system that this controller manages: a host of the lab."""

    driver = "<lab host>"

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self._claims_off = False

    @property
    def systems(self) -> list[str]:
        """Its UUID, as the host's firmware has it."""
        return [str(self._host.plan.uuid)]

    def uuid(self, identity: str) -> str:
        """The UUID again; 404 for any other system."""
        if identity not in self.systems:
            raise error.NotFound(f"{identity} is not managed here")
        return identity

    def name(self, identity: str) -> str:
        """The host's name."""
        self.uuid(identity)
        return self._host.plan.name

    def get_power_state(self, identity: str) -> str:
        """`On` while any process of the host lives."""
        self.uuid(identity)
        if self._mode() is BmcMode.LYING and self._claims_off:
            return "Off"
        return "On" if self._host.is_on() else "Off"

    def set_power_state(self, identity: str, state: str) -> None:
        """ForceOff and On, as they are; a board could do more, and nobody asks for it."""
        self.uuid(identity)
        switches: dict[str, Callable[[], None]] = {"ForceOff": self._off, "On": self._on}
        if state not in switches:
            raise error.BadRequest(f"{state} is none of {', '.join(switches)}")
        try:
            switches[state]()
        except EngineError as problem:
            raise error.Conflict(str(problem)) from problem

    def get_boot_device(self, identity: str) -> str:
        """Hosts of the lab boot from nothing else."""
        self.uuid(identity)
        return "Hdd"

    def set_boot_device(self, identity: str, boot_source: str) -> None:
        """Not theirs to choose."""
        raise error.NotSupportedError(f"{identity} boots from {self.get_boot_device(identity)}")

    def _off(self) -> None:
        if self._mode() is BmcMode.LYING:
            self._claims_off = True
        else:
            self._host.cut(CUT_WAIT_S)

    def _on(self) -> None:
        self._claims_off = False
        self._host.power_on()

    def _mode(self) -> BmcMode:
        mode = mode_of(self._host.folder, Controller.REDFISH)
        if mode is not BmcMode.LYING:
            self._claims_off = False
        return mode


Start = Callable[..., Any]
Wsgi = Callable[[dict[str, Any], Start], Iterable[bytes]]


def hangs_when_told(app: Wsgi, folder: Path) -> Wsgi:
    """The same application, but for requests that come while its mode is `hanging`."""

    def hangs() -> bool:
        return mode_of(folder, Controller.REDFISH) is BmcMode.HANGING

    def answer(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if not (environ.get("PATH_INFO", "").startswith(SYSTEMS) and hangs()):
            return app(environ, start)
        while hangs():
            time.sleep(HUNG_POLL_S)
        start("503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"too late\n"]

    return answer


def application(state: LabState, host: Host) -> Wsgi:
    """The emulator with this host as its only system."""
    accounts = host.folder / "redfish.accounts"
    # Four is bcrypt's least: what is kept here protects nothing but a lab.
    digest = bcrypt.hashpw(state.bmc_password.encode(), bcrypt.gensalt(rounds=4)).decode()
    write_private(accounts, f"{state.bmc_username}:{digest}\n")
    # The emulator chooses among its own drivers only, so its choice is replaced.
    emulator.Application.systems = HostSystem(host)
    emulator.app.configure(
        extra_config={
            "SUSHY_EMULATOR_AUTH_FILE": str(accounts),
            "SUSHY_EMULATOR_FEATURE_SET": "minimum",
            "SUSHY_EMULATOR_STATE_DIR": str(host.folder),
        }
    )
    return hangs_when_told(emulator.app, host.folder)


def certificate(folder: Path, name: str) -> Path:
    """The controller's key and certificate in one file, made once."""
    path = folder / "redfish.pem"
    if path.exists():
        return path
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bmc-{name}")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(ADDRESS))]), False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(path, (secret + signed.public_bytes(serialization.Encoding.PEM)).decode())
    return path


def serve(paths: Paths, name: str) -> None:
    """Answer for one host until the process is ended."""
    state = load(paths)
    if state is None:
        raise NotFound("LAB_ABSENT", f"no lab lies in {paths.root}")
    host = Host(state, paths, host_named(state, name))
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate(host.folder, name))
    server = make_server(
        ADDRESS, host.plan.redfish_port, application(state, host), threaded=True, ssl_context=tls
    )
    me = processes.identify(processes.own_pid())
    if me is None:
        raise NotFound("LAB_NO_PROC", "/proc does not show this process")
    # It listens already: what comes from now on is taken.
    write_private(record_file(host.folder, Controller.REDFISH), me.model_dump_json())
    server.serve_forever()


if __name__ == "__main__":
    serve(Paths(Path(sys.argv[1])), sys.argv[2])
