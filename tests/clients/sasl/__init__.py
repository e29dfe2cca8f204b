"""Clients that log in: every mechanism, over plain and encrypted listeners."""
