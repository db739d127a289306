"""Logging while a simulation runs: nothing is printed, and what code caught and logged is kept.

The engine's processes contain a defect of one host or duty and go on; here such a defect is a
finding like any other.
"""

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog


@contextmanager
def quiet(caught: list[BaseException]) -> Iterator[None]:
    """Print nothing; exceptions that were logged come into `caught`."""
    kept, disabled = structlog.get_config(), logging.root.manager.disable

    def keep(
        _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        error = sys.exc_info()[1]
        if event.get("exc_info") and error is not None:
            caught.append(error)
        raise structlog.DropEvent

    structlog.configure(
        processors=[keep],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        cache_logger_on_first_use=False,
    )
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        structlog.configure(**kept)
