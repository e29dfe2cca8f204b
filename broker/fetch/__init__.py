"""Fetching: sessions, reading within the limits, and the response written by hand."""
