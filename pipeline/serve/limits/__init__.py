"""How much of the server one client may take: connections, and threads for what may never end."""
