"""Following a leader: fetching what it has, and giving up what it has not."""
