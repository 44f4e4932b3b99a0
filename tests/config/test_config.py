"""The schema: every field has a meaning, every bad value a message, and the digest knows what counts."""

import dataclasses
import json
import math

import pytest

from vision_transfer.config import (
    FIELDS,
    STAGE_FIELDS,
    checked,
    default_config,
    digested,
    field_at,
    flatten,
    meaning_of,
    read_config,
    replaced_fields,
    stage,
    to_dict,
    validate,
    with_stages,
    with_value,
)
from vision_transfer.config.arguments import parse_recipe
from vision_transfer.config.checks import _typed
from vision_transfer.config.fields import NOT_IN_DIGEST
from vision_transfer.config.schema import AugmentConfig, Config, StageConfig
from vision_transfer.errors import UserError

ALL_FIELDS = {path: (path, field) for path, field in FIELDS.items()} | {
    f"stages.head.{path}": (path, field) for path, field in STAGE_FIELDS.items()
}


@pytest.fixture
def config():
    return with_stages(default_config(), head=stage(), block5=stage(freeze="below:block5_conv1"))


def put(config, path, value):
    *parents, name = path.split(".")
    for parent in parents:
        config = config[parent]
    config[name] = value


def fields_with(attribute):
    bounds = {path: getattr(field.setting, attribute, None) for path, (_, field) in ALL_FIELDS.items()}
    return [path for path, bound in bounds.items() if bound is not None]


def message_of(config):
    with pytest.raises(UserError) as error:
        checked(config)
    return str(error.value)


def test_the_defaults_are_allowed(config):
    checked(config)


@pytest.mark.parametrize("path", ALL_FIELDS)
def test_every_field_has_a_meaning_and_a_type(config, path):
    _, field = ALL_FIELDS[path]
    assert len(field.meaning) > 10
    assert meaning_of(path) == field.meaning
    assert field.optional or field.default is not None
    if field.choices and field.default is not None:
        assert set(field.default if field.kind is tuple else [field.default]) <= set(field.choices)


@pytest.mark.parametrize("path", [path for path, (_, field) in ALL_FIELDS.items() if field.choices])
def test_a_value_outside_the_choices_is_named(config, path):
    _, field = ALL_FIELDS[path]
    bad = 7 if isinstance(field.choices[0], int) else "nonsense"
    bad = (bad,) if field.kind is tuple else bad
    put(config, path, bad)
    message = message_of(config)
    assert f"config.{path}: got {bad!r}" in message
    assert all(str(choice) in message for choice in field.choices)


@pytest.mark.parametrize("path", fields_with("minimum"))
def test_a_number_below_the_smallest_is_named(config, path):
    _, field = ALL_FIELDS[path]
    least = field.setting.minimum
    bad = (field.element(least - 1),) if field.kind is tuple else field.kind(least - 1)
    put(config, path, bad)
    message = message_of(config)
    assert f"config.{path}: got {bad!r}" in message
    assert f"{least:g} or more" in message
    if field.kind is float:
        put(config, path, math.nan)
        assert f"config.{path}: got nan" in message_of(config)


@pytest.mark.parametrize("path", fields_with("below"))
def test_a_number_that_is_too_large_is_named(config, path):
    _, field = ALL_FIELDS[path]
    bound = field.setting.below
    put(config, path, float(bound))
    assert f"config.{path}: got {float(bound)!r}; allowed is less than {bound:g}" in message_of(config)


@pytest.mark.parametrize("path", fields_with("maximum"))
def test_a_number_above_the_largest_is_named(config, path):
    _, field = ALL_FIELDS[path]
    bad = field.element(field.setting.maximum + 1)
    put(config, path, (bad, bad) if field.kind is tuple else bad)
    assert f"allowed is at most {field.setting.maximum:.10g}" in message_of(config)


@pytest.mark.parametrize("path", ALL_FIELDS)
def test_a_value_of_another_type_is_refused_where_it_is_set(config, path):
    _, field = ALL_FIELDS[path]
    bad = 3 if field.kind is str else "text"
    with pytest.raises(TypeError):
        put(config, path, bad)


@pytest.mark.parametrize("path", ["batchsize", "model.backbonne", "stages.head.optimizer.learning_rate"])
def test_an_unknown_field_is_refused_where_it_is_set(config, path):
    with pytest.raises((AttributeError, KeyError), match=path.split(".")[-1]):
        put(config, path, 1)


def test_an_unknown_field_of_a_stage_is_refused():
    with pytest.raises((AttributeError, KeyError), match="epoch"):
        stage(epoch=3)


def test_empty_fields_can_be_set_and_emptied_again(config):
    config.dataset.image_size = 64
    config.stages.head.patience = 3
    config.dataset.image_size = None
    checked(config)
    assert flatten(checked(config))["dataset.image_size"] is None


def test_all_problems_are_told_at_once(config):
    config.batch_size = 0
    config.stages.block5.epochs = -1
    config.model.hidden = (0,)
    assert len(message_of(config).splitlines()) == 3


@pytest.mark.parametrize("hidden", [(0,), (256, -1), (1.5,), ("a",)])
def test_bad_hidden_layers_are_named(config, hidden):
    config.model.hidden = hidden
    assert "config.model.hidden" in message_of(config)


@pytest.mark.parametrize(
    ("schedule", "named"),
    [
        ((), "config.schedule: is empty"),
        (("head", "blok5"), "config.schedule: names stage 'blok5'.*block5"),
        (("head", "head"), "names stage 'head' twice"),
    ],
)
def test_bad_schedules_are_named(config, schedule, named):
    config.schedule = schedule
    with pytest.raises(UserError, match=named):
        checked(config)


def test_a_stage_that_is_not_scheduled_is_not_checked(config):
    config.stages.block5.epochs = -1
    config.schedule = ("head",)
    checked(config)


def test_the_schedule_keeps_the_order_that_a_config_would_sort():
    config = with_stages(default_config(), head=stage(), block5=stage())
    assert config.schedule == ("head", "block5")
    assert list(config.stages) != list(config.schedule)


def test_a_stages_values_are_its_own():
    config = with_stages(default_config(), a=stage(epochs=3, optimizer={"lr": 0.5}), b=stage())
    assert (config.stages.a.epochs, config.stages.a.optimizer.lr, config.stages.a.optimizer.name) == (3, 0.5, "rmsprop")
    assert config.stages.b.epochs == STAGE_FIELDS["epochs"].default


def test_a_config_survives_json(config):
    config.dataset.root = "somewhere"
    flat = flatten(checked(config))
    assert json.loads(json.dumps(flat)) == flat
    assert flat["schedule"] == ["head", "block5"]
    assert flat["stages.block5.freeze"] == "below:block5_conv1"
    # All fields are in it, and nothing else.
    assert {path for path in flat if not path.startswith("stages.")} == set(FIELDS)
    assert {path.split(".", 2)[2] for path in flat if path.startswith("stages.")} == set(STAGE_FIELDS)


def unchecked(config):
    """The typed configuration, without the rules that relate fields: a single field is changed here."""
    return _typed(config.to_dict(), "config.")


def other_value(field):
    kind = field.kind
    if kind is tuple and field.element is float:
        return (0.25, 0.5)
    if kind is tuple:
        return (*field.default, field.choices[-1] if field.choices else field.element(1))
    if field.choices:
        return next((choice for choice in field.choices if choice != field.default), "parts.py:own")
    if kind is bool:
        return not field.default
    return "other" if kind is str else kind((field.default or 0) + 0.25 if kind is float else (field.default or 0) + 1)


@pytest.mark.parametrize("path", [path for path in ALL_FIELDS if path != "schedule"])
def test_the_digest_is_of_all_but_places_and_habits(config, path):
    before = digested(unchecked(config))
    put(config, path, other_value(ALL_FIELDS[path][1]))
    ignored = any(path == name or path.startswith(f"{name}.") for name in NOT_IN_DIGEST)
    assert (digested(unchecked(config)) == before) == ignored


def test_what_the_digest_ignores(config):
    ignored = set(flatten(checked(config))) - set(digested(checked(config)))
    # A benchmark, a probe and a check train nothing that is kept, runs of studies, ablations and searches are named one
    # by one, a log is only read, jobs only say where, and a decision follows from what was trained. The range of values
    # is in the data's fingerprint.
    others = ("benchmark.", "probe.", "check.", "study.", "ablation.", "log.", "slurm.", "search.", "decision.")
    assert {path for path in ignored if not path.startswith(others)} == {
        "dataset.root",
        "dataset.value_range",
        "dataset.splits.train",
        "dataset.splits.validation",
        "dataset.splits.test",
        "dataset.decode",
        "model.weights_path",
        "init_from",
        "features.budget_gb",
        "checkpoint.every_seconds",
    }


def test_a_recipe_that_is_not_given_has_the_defaults():
    recipe = parse_recipe(None, edition=2, augment=False)
    assert (recipe.edition, recipe.augment) == (2, False)


def test_recipe_values_have_the_defaults_types():
    recipe = parse_recipe("edition=1,augment,lr=1,name=a b", edition=2, augment=False, lr=0.5, name="x")
    assert (recipe.edition, recipe.augment, recipe.lr, recipe.name) == (1, True, 1.0, "a b")
    assert isinstance(recipe.lr, float)


def test_recipe_false_can_be_said():
    assert parse_recipe("augment=False", augment=True).augment is False


@pytest.mark.parametrize("argument", ["", ","])
def test_recipe_nothing_is_nothing(argument):
    assert parse_recipe(argument, edition=2).edition == 2


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("editon=1", "unknown key 'editon'; did you mean edition"),
        ("edition=one", "edition: got 'one'; allowed is a value of type int"),
        ("edition=1.5", "type int"),
        ("edition=True", "type int"),
        ("edition=", "type int"),
        ("augment=1", "type bool"),
        ("lr=fast", "type float"),
        ("lr=True", "type float"),
    ],
)
def test_bad_recipes_are_named(argument, named):
    with pytest.raises(UserError, match=named):
        parse_recipe(argument, edition=2, augment=False, lr=0.5)


def test_recipe_a_bare_key_is_for_switches_only():
    with pytest.raises(UserError, match=r"edition has no value.*type int"):
        parse_recipe("edition", edition=2)


def test_a_config_file_becomes_frozen_dataclasses(config):
    typed = checked(config)
    assert isinstance(typed, Config) and isinstance(typed.stages["block5"], StageConfig)
    assert typed.stages["block5"].freeze == "below:block5_conv1"
    assert flatten(typed) == flatten(config.to_dict())
    with pytest.raises(dataclasses.FrozenInstanceError):
        typed.batch_size = 3


def test_the_defaults_of_a_config_file_are_those_of_the_schema():
    assert flatten(default_config().to_dict()) == {
        path: list(field.default) if isinstance(field.default, tuple) else field.default
        for path, field in FIELDS.items()
    }
    assert flatten(stage().to_dict()) == flatten(
        to_dict(dataclasses.replace(Config(), stages={"a": StageConfig()}))["stages"]["a"]
    )


def test_a_saved_config_is_read_back_as_it_was(config, tmp_path):
    config.model.hidden = (32, 16)
    typed = checked(config)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_dict(typed)), encoding="utf-8")
    assert read_config(file) == typed


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"speed": 1}, "speed: this version has no such field"),
        ({"batchsize": 1}, "batchsize: this version has no such field; did you mean batch_size"),
        ({"batch_size": "32"}, "batch_size: got '32'; allowed is a whole number"),
        ({"batch_size": True}, "batch_size: got True; allowed is a whole number"),
        ({"batch_size": 0}, "batch_size: got 0; allowed is 1 or more"),
        ({"model": {"hidden": [1.5]}}, r"model.hidden: got \[1.5\]; allowed is a list of whole numbers"),
        ({"model": 3}, "model: got 3; expected a group of fields"),
        (
            {"stages": {"head": {"epoch": 1}}, "schedule": ["head"]},
            "stages.head.epoch: this version has no such field; did you",
        ),
    ],
)
def test_a_saved_config_that_does_not_fit_is_named(config, tmp_path, changes, named):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(json.dumps(to_dict(checked(config)))) | changes), encoding="utf-8")
    with pytest.raises(UserError, match=named) as error:
        read_config(file)
    assert str(file) in str(error.value)


def test_names_with_choices_can_be_listed_with_commas(config):
    """As absl gives `--config.benchmark.peers=keras,torch`: a tuple of one text."""
    config.benchmark.peers = ("keras,torch",)
    assert checked(config).benchmark.peers == ("keras", "torch")


@pytest.mark.parametrize(
    ("augment", "named"),
    [
        ({"preset": "keras_layers", "rotation": 20.0}, "config.augment.rotation: got 20.0; allowed is at most 1"),
        ({"preset": "keras_layers", "shear": 2.0}, "config.augment.shear: got 2.0; allowed is at most 1"),
        ({"crop_scale": (0.5,)}, "config.augment.crop_scale"),
        ({"crop_scale": (0.0, 1.0)}, "config.augment.crop_scale"),
        ({"crop_scale": (0.9, 0.5)}, "config.augment.crop_scale"),
    ],
)
def test_augmentation_that_its_preset_does_not_allow_is_named(config, augment, named):
    config.augment.update(augment)
    assert named in message_of(config)


def test_degrees_are_allowed_where_the_preset_has_them():
    augment = AugmentConfig(preset="image_data_generator", rotation=40.0, shear=20.0)
    validate(Config(augment=augment, schedule=("head",), stages={"head": StageConfig()}))


def test_every_field_that_a_list_replaces_exists():
    for path, field in FIELDS.items():
        for replaced in field.setting.instead_of:
            assert field_at(replaced) is not None, path


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"task": "train"}, {}),
        ({"task": "probe"}, {}),
        ({"task": "probe", "probe.backbones": ("vgg16",)}, {"model.backbone": "probe.backbones"}),
        ({"task": "transfer_curve"}, {"seed": "study.seeds", "dataset.subset_seed": "study.seeds"}),
        (
            {"task": "ablation"},
            {
                "seed": "study.seeds",
                "dataset.subset_seed": "study.seeds",
                "stages.tune.freeze": "ablation.masks",
                "stages.tune.optimizer.lr_multipliers": "ablation.multipliers",
                "schedule": "ablation.schedules",
            },
        ),
    ],
)
def test_a_list_that_is_not_empty_replaces_a_field(changes, expected):
    config = Config()
    for path, value in changes.items():
        config = with_value(config, path, value)
    assert replaced_fields(config) == expected
