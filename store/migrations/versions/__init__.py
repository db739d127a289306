"""One file a revision; each says what it changes, operation by operation."""
