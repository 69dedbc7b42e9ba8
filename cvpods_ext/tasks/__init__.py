"""What engine, cli and report ask for data, predictions, metrics and pictures, whatever the task is."""
