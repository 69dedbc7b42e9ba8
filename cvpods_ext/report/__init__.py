"""Tables, cards and pictures, rendered from results.json and detections on disk; nothing here is typed by hand."""
