"""Processes: roles, wiring, interceptors, and the Temporal server they talk to."""
