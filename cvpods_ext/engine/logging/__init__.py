"""What a run reports: metrics.jsonl, TensorBoard, Weights & Biases, progress, pictures."""
