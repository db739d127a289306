"""The engine core: actions and queries inside transactions, and the records that steps keep."""
