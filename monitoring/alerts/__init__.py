"""Recording rules, service levels and alerts for Prometheus, written in code and exported as one YAML file."""

from monitoring.alerts.export import RULES_FILE, prometheus_rule, rules_yaml
from monitoring.alerts.rules import Alert, Options, Record, groups

__all__ = ["RULES_FILE", "Alert", "Options", "Record", "groups", "prometheus_rule", "rules_yaml"]
