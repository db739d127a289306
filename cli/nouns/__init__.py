"""The commands on the engine's objects, one file a noun."""
