"""Bad input against a real broker process: it neither stops nor grows nor disturbs its clients."""
