"""A real IPMI 2.0 controller on loopback, as a process: `python bmc.py PORT PASSWORD_FILE`."""

import sys
from pathlib import Path
from uuid import UUID

from pyghmi.ipmi.bmc import Bmc

MACHINE = UUID("00112233-4455-6677-8899-aabbccddeeff")


class LoopbackBmc(Bmc):  # type: ignore[misc]  # pyghmi has no types
    """A machine that is only a power state."""

    power = "on"

    def get_power_state(self) -> str:
        return self.power

    def get_system_guid(self) -> UUID:
        return MACHINE

    def power_off(self) -> None:
        self.power = "off"

    def power_on(self) -> None:
        self.power = "on"


if __name__ == "__main__":
    password = Path(sys.argv[2]).read_text().strip()
    bmc = LoopbackBmc({"admin": password}, port=int(sys.argv[1]), address="127.0.0.1")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    bmc.listen()
