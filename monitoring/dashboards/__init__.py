"""Four dashboards: one table of panels, drawn by Grafana and, for a look without it, by `headwater dashboards preview`.

`grafana/*.json` is what `python -m monitoring.dashboards` writes from the tables beside it; do not edit it by hand.
"""

from pathlib import Path

from monitoring.dashboards.aggregator import AGGREGATOR
from monitoring.dashboards.fleet import FLEET
from monitoring.dashboards.kafka import KAFKA
from monitoring.dashboards.model import Dashboard
from monitoring.dashboards.slo import SLO

DASHBOARDS: tuple[Dashboard, ...] = (FLEET, AGGREGATOR, KAFKA, SLO)

GRAFANA_FOLDER = Path(__file__).with_name("grafana")


def grafana_file(dashboard: Dashboard) -> Path:
    """Where the dashboard lies as Grafana reads it."""
    return GRAFANA_FOLDER / f"headwater-{dashboard.name}.json"
