"""A broker as a process: how it starts, stops and comes back, and what it costs."""
