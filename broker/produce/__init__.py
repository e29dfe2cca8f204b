"""Producing: the ordinary request read and answered without the general codec."""
