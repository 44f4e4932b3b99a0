"""The configuration: made by files in `configs/`, changed by flags, and checked once into frozen dataclasses.

A config file starts from `default_config()` and changes values; behind the flags, everything reads a `Config`.
"""

from vision_transfer.config.checks import checked, read_config, validate
from vision_transfer.config.config_dict import ConfigDict, default_config, stage, with_extra, with_stages
from vision_transfer.config.fields import (
    FIELDS,
    STAGE_FIELDS,
    digested,
    field_at,
    field_types,
    flatten,
    meaning_of,
    replaced_fields,
    to_dict,
    value_at,
    with_value,
)
from vision_transfer.config.schema import Config, StageConfig

__all__ = [
    "FIELDS",
    "STAGE_FIELDS",
    "Config",
    "ConfigDict",
    "StageConfig",
    "checked",
    "default_config",
    "digested",
    "field_at",
    "field_types",
    "flatten",
    "meaning_of",
    "read_config",
    "replaced_fields",
    "stage",
    "to_dict",
    "validate",
    "value_at",
    "with_extra",
    "with_stages",
    "with_value",
]
