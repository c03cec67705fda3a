"""Draws the dashboards of deploy/grafana/ into docs/img/, from what a running Prometheus holds.

    python -m tools.dashboards.pictures --prometheus=http://127.0.0.1:9090

Grafana's own components draw, in Chromium; its server is not needed. An aid for whoever changes a
dashboard: it needs Node 20, Chromium, and the Python packages playwright and pillow, which nothing
else does.
"""
