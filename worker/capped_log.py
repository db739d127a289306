"""Keep what a child process says in a file that cannot grow without bound.

A Temporal server whose database is in trouble logs hundreds of megabytes a minute. The child writes
into a pipe and a thread of ours writes the file: at the cap the file becomes `<name>.1`, replacing
the one before it. A thread and not a task, because a child must not stall on a full pipe while the
event loop is busy. The thread ends when the last writer has closed the pipe.
"""

import contextlib
import os
import threading
from pathlib import Path

CAP_BYTES = 8 * 1024 * 1024
"""Size at which the log file is turned over; at most twice this is on disk.

Higher: more disk for a server in trouble. Lower: the beginning of the trouble is lost sooner.
"""
CHUNK_BYTES = 64 * 1024


class CappedLog:
    """A pipe whose contents end up in a capped file; `write_end` is for the child.

    OSError or RuntimeError when there is no file or no thread to be had.
    """

    def __init__(self, path: Path, cap_bytes: int = CAP_BYTES) -> None:
        self._path = path
        self._cap_bytes = cap_bytes
        self._read_end, self.write_end = os.pipe()
        self._thread = threading.Thread(target=self._copy, name=f"log {path.name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            # No thread to be had now; a caller that tries again must not run out of files, too.
            os.close(self._read_end)
            os.close(self.write_end)
            raise

    def close_write_end(self) -> None:
        """To be called once the child has its copy, or the thread would never see the end."""
        os.close(self.write_end)

    def join(self, within_s: float) -> None:
        """Wait until all that was written before the pipe's end is in the file."""
        self._thread.join(within_s)

    def _copy(self) -> None:
        with os.fdopen(self._read_end, "rb", buffering=0) as source:
            while self._copy_one_file(source.fileno()):
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))

    def _copy_one_file(self, source: int) -> bool:
        """Append until the cap is reached (True) or the pipe has ended (False)."""
        with self._path.open("ab", buffering=0) as target:
            while chunk := os.read(source, CHUNK_BYTES):
                # A full disk must not end this thread: the child would die of a closed pipe.
                with contextlib.suppress(OSError):
                    target.write(chunk)
                if target.tell() >= self._cap_bytes:
                    return True
        return False


def tail(path: Path, lines: int) -> str:
    """The last lines of a log, joined by ` | `; empty when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - CHUNK_BYTES))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return " | ".join(text.strip().splitlines()[-lines:])
