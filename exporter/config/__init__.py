"""The configuration: what it may say (models), and how it is read (loader)."""

from exporter.config.auth import Auth
from exporter.config.models import Account, Config, is_loopback
from exporter.config.rule import PLACEHOLDER, Defaults, JobRule, label_name

__all__ = [
    "PLACEHOLDER",
    "Account",
    "Auth",
    "Config",
    "Defaults",
    "JobRule",
    "is_loopback",
    "label_name",
]
