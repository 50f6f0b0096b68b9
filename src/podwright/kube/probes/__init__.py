"""Probes: whether containers have started, live and are ready to serve.

`results` holds what was found out, `worker` asks one container one question again and again, `prober` keeps
the workers of a pod, and exec, http, tcp and grpc ask. Restarting what fails is not decided here: `actions`
does that.
"""
