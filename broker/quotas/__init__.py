"""Quotas of clients, and the bandwidth of the instance: who is told to wait, and how long."""
