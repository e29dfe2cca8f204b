"""The transaction coordinator (KIP-98): one transaction at a time for each transactional id."""
