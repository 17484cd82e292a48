"""How one run starts, and how its processes stand among each other."""
