"""The whole configuration of a run: typed tables, TOML files merged left to right, overrides."""

from configs.loading import load, usage
from configs.schema import Config
from configs.typing import ConfigError

__all__ = ["Config", "ConfigError", "load", "usage"]
