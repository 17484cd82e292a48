"""The record of a run: written by the trainer, read by anyone."""
