"""The controller: who leads what."""
