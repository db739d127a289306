"""Everything that changes nothing, found by its parameters' type."""
