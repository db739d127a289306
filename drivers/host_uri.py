"""Which libvirt URIs a host may have, and where they lead.

A URI comes from whoever may register a host, and libvirt can be told by one to run a local program
(`command=`, `netcat=`), so everything is on a list: scheme, path and query parameters.
"""

import re
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from domain.base import Frozen
from domain.errors import Invalid

DEFAULT_PORTS = {"tcp": 16509, "tls": 16514, "ssh": 22}
TRANSPORT_BY_SCHEME = {
    "qemu+tcp": "tcp",
    "qemu+tls": "tls",
    "qemu+ssh": "ssh",
    "test": "",
    "test+tcp": "tcp",
    "test+tls": "tls",
}
PARAMETERS = frozenset({"keyfile", "known_hosts", "no_tty", "pkipath", "tls_priority"})
HOST_PATTERN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?")
USER_PATTERN = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*)")


class HostUri(Frozen):
    """A checked URI. `transport` is empty for a driver inside this process."""

    uri: str  # what libvirt is given
    test_driver: bool
    transport: str
    host: str
    port: int

    @property
    def label(self) -> str:
        """What a message calls the host: no user name, no parameters."""
        return f"{self.host}:{self.port}" if self.transport else self.uri


def parse_host_uri(uri: str) -> HostUri:
    """Check a URI; Invalid names the part that is not supported and what is."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise Invalid("URI_MALFORMED", f"not a URI: {error}") from None
    if parts.scheme not in TRANSPORT_BY_SCHEME:
        known = ", ".join(TRANSPORT_BY_SCHEME)
        raise Invalid(
            "URI_SCHEME_UNSUPPORTED",
            f"scheme {parts.scheme or 'none'!r} is not one of {known}",
            next_step="use for example qemu+tls://HOST/system",
            scheme=parts.scheme,
        )
    transport = TRANSPORT_BY_SCHEME[parts.scheme]
    _check_place(parts, transport)
    return HostUri(
        uri=_with_parameters(parts, transport),
        test_driver=parts.scheme.startswith("test"),
        transport=transport,
        host=parts.hostname or "",
        port=port or DEFAULT_PORTS.get(transport, 0),
    )


def _check_place(parts: SplitResult, transport: str) -> None:
    if parts.password is not None:
        raise Invalid("URI_MALFORMED", "a password does not belong in a URI")
    if parts.username is not None and not USER_PATTERN.fullmatch(parts.username):
        raise Invalid("URI_MALFORMED", "the user name has characters outside A-Z a-z 0-9 . _ -")
    if not transport:
        if parts.netloc or not parts.path.startswith("/"):
            raise Invalid("URI_MALFORMED", "a local test URI is test:///default or test:///FILE")
        return
    if not HOST_PATTERN.fullmatch(parts.hostname or ""):
        raise Invalid("URI_MALFORMED", f"{parts.hostname or 'nothing'!r} is not a host name")
    path = "/default" if parts.scheme.startswith("test") else "/system"
    if parts.path != path:
        raise Invalid("URI_MALFORMED", f"the path is {parts.path or 'empty'!r}, not {path}")


def _with_parameters(parts: SplitResult, transport: str) -> str:
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(parameters) - PARAMETERS)
    if unknown or parts.fragment:
        name = unknown[0] if unknown else "#"
        raise Invalid(
            "URI_PARAMETER_UNSUPPORTED",
            f"parameter {name!r} is not one of {', '.join(sorted(PARAMETERS))}",
            parameter=name,
        )
    if transport == "ssh":
        parameters["no_tty"] = "1"  # A password prompt would wait on the engine's terminal.
    query = f"?{urlencode(parameters, safe='/')}" if parameters else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path}{query}"
