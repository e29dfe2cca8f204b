"""What the coordinators of groups and of transactions have in common: state that lives in the
partitions of a topic of their own, led here or elsewhere."""
