"""The command `podwright`."""

import os

# gRPC writes of itself to stderr, amid what people read, when a server goes away. It looks here when it is
# loaded.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
