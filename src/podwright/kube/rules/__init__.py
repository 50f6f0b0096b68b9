"""What is to be done with a pod as it is: the kubelet's decisions. Pure."""
