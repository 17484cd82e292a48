"""What the optimizers share: the shape, one pass over memory, matrices, hyperparameters."""
