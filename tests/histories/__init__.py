"""Judging what clients saw: recorded histories of sends, polls and transactions, and their checker.

A workload notes what each of its clients asked for and what came back (``record``), and
``check`` names everything in it that a log of Kafka's guarantees must never show.
"""
