"""Front door: Kubernetes Pod manifests, run without a cluster as a kubelet runs them.

Reading: `documents` (text), `kinds` (what a document is), `objects`, `workloads`, `static_pods`, `manifest`
(one Pod, with `defaults`, `admission`, `fields` and the `validation` files). Asking: `translate` (with
`sandbox`, `container`, `security`, `resources`, `dns`, `env`) turns a Pod on a `node` into CRI messages,
`planning` lists those of a start. Files: `volumes`, `hosts`, `directory`, `pod_cgroups`. Life: `worker` looks
at the runtime, decides and acts, again and again; `runner` runs a Pod from its start to its end.
"""
