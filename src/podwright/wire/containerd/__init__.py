"""The API of a containerd, a module for each of its services and types. Written by tools/write_protos.py."""
