"""Processes: this one among others, and the scripts that start them."""
