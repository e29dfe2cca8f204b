"""Access control lists: who may do what to which resource, from where (KIP-11, KIP-290)."""
