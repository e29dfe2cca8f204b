"""One partition on one disk, and the set of them."""
