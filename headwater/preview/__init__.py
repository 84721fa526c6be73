"""Dashboards without Grafana: their panels drawn from a Prometheus into pictures, for a look."""
