"""The version of the engine, as every part of it tells it."""

VERSION = "0.1.0"
API = "v1"
