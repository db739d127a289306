"""Durable operations, one a file; every option in `options.py`."""
