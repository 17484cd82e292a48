"""The whole configuration of a run: typed tables, TOML files merged left to right, overrides."""

from configs.batch import Batch
from configs.loading import load, usage
from configs.origin import origins
from configs.schema import Config, Train
from configs.shape import Model
from configs.validation import ConfigError

__all__ = ["Batch", "Config", "ConfigError", "Model", "Train", "load", "origins", "usage"]
