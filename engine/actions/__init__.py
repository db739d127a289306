"""Everything that changes something: one small class an action, found by its parameters' type."""
