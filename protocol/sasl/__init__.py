"""What both sides of a SASL exchange share: formats and arithmetic, the client's steps."""
