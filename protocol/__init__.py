"""Bytes to values and back: the Kafka wire protocol and record formats. No I/O, no clock."""
