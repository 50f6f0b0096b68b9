"""From text to Pods that can run: documents, the objects beside Pods, workloads, defaults, validation."""
