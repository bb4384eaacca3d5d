"""Who looks at clips: processes of this machine, or of the machines of a Ray cluster."""
