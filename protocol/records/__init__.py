"""Record batches, legacy message sets, compression and conversions between them."""
