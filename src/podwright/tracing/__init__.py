"""Spans: what OpenTelemetry collectors are told of calls and their steps (`podwright.steps`).

`exporting.py` is the way in; it loads the optional packages of `podwright[tracing]` when tracing is
configured and not before. `spans.py` says what a span of ours has. Nothing here may hold up, slow down or
fail what is traced.
"""
