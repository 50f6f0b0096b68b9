"""What engines share whose containers are processes of this node: namespaces, files, mounts, specs."""
