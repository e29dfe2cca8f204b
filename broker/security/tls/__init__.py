"""TLS: stores of keys and certificates, contexts made from Kafka's settings, connections."""
