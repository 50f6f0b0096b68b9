"""The containerd engine: CRI on a containerd through its public gRPC API (docs/containerd.md)."""
