"""One module per API key: the tree is the table of contents."""
