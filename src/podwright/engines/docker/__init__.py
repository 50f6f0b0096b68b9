"""The docker engine: pods on a Docker Engine, through its API."""
