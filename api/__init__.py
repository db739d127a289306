"""The REST API: the only door for people and programs."""
