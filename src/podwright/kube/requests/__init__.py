"""From Pods to CRI requests, as a kubelet makes them. Pure; `translate` is the way in."""
