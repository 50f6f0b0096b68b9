"""A pod's files and cgroups on the host, but for its volumes."""
