"""How one run starts, and how its processes meet and watch each other."""
