"""Looking at a data directory without serving it: ``kavka dump-log`` and ``kavka check``.

Nothing here is used by a running broker. Files are read in pieces, whatever their size, and
nothing is written but the lock that keeps a broker out while its directory is checked.
"""
