"""Every setting as data."""
