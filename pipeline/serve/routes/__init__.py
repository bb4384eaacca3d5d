"""The endpoints by what they are about, each file a router of handlers."""
