"""What a reader concludes from the records of many runs."""
