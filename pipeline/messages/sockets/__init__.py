"""ZeroMQ sockets: where they bind, whom they let in, what bounds them, and how they end."""
