"""What there is of a pod: what the runtime tells, the status that follows, and what is kept of both."""
