"""What a reader concludes from the records of many runs."""

METRICS = (  # that may be judged; lower is better in all of them
    "final_test_loss",
    "final_val_loss",
    "best_val_loss",
    "final_train_loss",
    "avg_loss",
    "loss_noise",
    "spike_score",
    "train_seconds",
    "step_ms_median",
    "optimizer_ms_median",
    "peak_memory_gib",
    "train_test_gap",
    "largest_eigenvalue",
    "keskar_sharpness",
    "adaptive_sharpness",
)
