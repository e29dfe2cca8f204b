"""Every API message, declared once; one module per API key."""
