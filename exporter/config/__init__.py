"""The configuration: what it may say (models), and how it is read (loader)."""

from exporter.config.models import Account, Config, is_loopback
from exporter.config.rule import PLACEHOLDER, Defaults, Rule, label_name
from exporter.config.sign_in import Auth

__all__ = [
    "PLACEHOLDER",
    "Account",
    "Auth",
    "Config",
    "Defaults",
    "Rule",
    "is_loopback",
    "label_name",
]
