"""The only place that knows SQL: schema, transactions, and each statement a named function."""
