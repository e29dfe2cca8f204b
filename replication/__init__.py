"""Agreement: metadata store, controller, partitions and their replicas."""
