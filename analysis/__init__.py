"""What is asked of trained weights afterwards."""
