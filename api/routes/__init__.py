"""Routes, one file a family of objects."""
