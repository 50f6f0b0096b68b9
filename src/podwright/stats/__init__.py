"""What containers and pods use: read from control groups, /proc, network namespaces and file trees.

Only figures live here, as the kernel has them, in bytes, nanoseconds and counts; what CRI messages are made
of them is the engine's.
"""
