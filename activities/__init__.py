"""Steps: thin, idempotent, one class a subject, dependencies handed in through ports."""
