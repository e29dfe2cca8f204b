"""The metadata store: a tree with ZooKeeper semantics."""
