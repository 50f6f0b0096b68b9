"""Front door: Kubernetes Pod manifests, run without a cluster.

`manifest` reads and validates, `translate` (with `env` and `resources`) turns a Pod into CRI messages,
`volumes` and `hosts` make the files it needs on the host, `runner` runs it on any CRI in the kubelet's order.
"""
