"""Measure this broker beside something else in the same run: ``python -m bench``."""
