"""Let the SDK download the Temporal CLI into a folder: a script for a process of its own.

The SDK has no call that only downloads, and none that gives up on a network that swallows packets.
So this process starts the dev server in the way that downloads it and stops it again, and
`worker.temporal_get` ends the process when no more bytes arrive. It imports nothing of ours.
"""

import asyncio
import os
import sys

from temporalio.testing import WorkflowEnvironment


async def download(folder: str, version: str) -> None:
    """Leave the CLI of that version in `folder`; RuntimeError when it cannot be had."""
    server = await WorkflowEnvironment.start_local(
        download_dest_dir=folder, dev_server_download_version=version
    )
    await server.shutdown()


def main() -> int:
    """Download, and tell the reason for a failure as one line."""
    try:
        asyncio.run(download(sys.argv[1], sys.argv[2]))
    except RuntimeError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    return 0


if __name__ == "__main__":
    ended = main()
    sys.stderr.flush()
    # The SDK's threads can crash the interpreter's teardown; see worker/exit.py.
    os._exit(ended)
