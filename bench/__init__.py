"""The benchmark: podwright beside Debian's containerd and the bare floor, interleaved in one run."""
