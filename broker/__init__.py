"""What a broker does for its clients: connections, handlers, coordinators, command line."""
