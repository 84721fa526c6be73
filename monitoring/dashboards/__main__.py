"""`python -m monitoring.dashboards` writes grafana/*.json again from the tables of panels."""

from monitoring.dashboards import DASHBOARDS, grafana_file
from monitoring.dashboards.to_grafana import to_json


def main() -> None:
    """Write every dashboard."""
    for dashboard in DASHBOARDS:
        path = grafana_file(dashboard)
        path.write_text(to_json(dashboard))
        print(path.name)


if __name__ == "__main__":
    main()
