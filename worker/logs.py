"""Structured logs: one line an event, a constant sentence and its facts beside it."""

import logging
import sys

import structlog


def set_up_logs(level: str, process: str) -> None:
    """JSON on stdout where nobody watches, coloured text on a terminal."""
    structlog.contextvars.bind_contextvars(process=process)
    terminal = sys.stdout.isatty()
    renderer = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
