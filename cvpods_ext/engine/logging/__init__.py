"""What a run reports: metrics.jsonl, TensorBoard, progress, frequency groups."""
