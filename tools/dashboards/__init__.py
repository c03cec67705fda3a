"""The Grafana dashboards in deploy/grafana/, and what they are made of."""

from tools.dashboards import exporter_health, job, nodes, overview
from tools.dashboards.building import Board

BOARDS: tuple[Board, ...] = (overview.BOARD, job.BOARD, nodes.BOARD, exporter_health.BOARD)
