"""Rules of Holdfast: pure decisions over frozen facts, no clock, no random, no I/O."""
