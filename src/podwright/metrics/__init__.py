"""Figures about podwright itself for Prometheus: how long calls and their steps take, what fails, how much
there is. Those of pods and containers are the CRI's (`core/metrics.py`).

`meter` counts what happens, `state` tells what there is, `endpoint` serves both. Loaded only where it is
configured.
"""
