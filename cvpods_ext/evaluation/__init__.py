"""From detections on disk to metrics: columnar shards, LVIS and COCO protocols, results.json. Free of torch."""
