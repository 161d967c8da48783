"""Generated sample data."""
