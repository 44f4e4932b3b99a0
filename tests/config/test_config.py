"""The schema: every field has a meaning, every bad value a message, and the digest knows what counts."""

import json
import math

import pytest

from vision_transfer.config import (
    FIELDS,
    NOT_IN_DIGEST,
    STAGE_FIELDS,
    default_config,
    digested,
    flatten,
    meaning_of,
    stage,
    validate,
    with_stages,
)
from vision_transfer.config.arguments import parse_recipe
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
    return [path for path, (_, field) in ALL_FIELDS.items() if getattr(field, attribute) not in (None, ())]


def message_of(config):
    with pytest.raises(UserError) as error:
        validate(config)
    return str(error.value)


def test_the_defaults_are_allowed(config):
    validate(config)


@pytest.mark.parametrize("path", ALL_FIELDS)
def test_every_field_has_a_meaning_and_a_type(config, path):
    _, field = ALL_FIELDS[path]
    assert len(field.meaning) > 10
    assert meaning_of(path) == field.meaning
    assert (field.default is None) == (field.kind is not None)
    if field.choices and field.default is not None:
        assert field.default in field.choices


@pytest.mark.parametrize("path", fields_with("choices"))
def test_a_value_outside_the_choices_is_named(config, path):
    _, field = ALL_FIELDS[path]
    bad = 7 if isinstance(field.choices[0], int) else "nonsense"
    put(config, path, bad)
    message = message_of(config)
    assert f"config.{path}: got {bad!r}" in message
    assert all(str(choice) in message for choice in field.choices)


@pytest.mark.parametrize("path", fields_with("minimum"))
def test_a_number_below_the_smallest_is_named(config, path):
    _, field = ALL_FIELDS[path]
    kind = field.kind or type(field.default)
    bad = kind(field.minimum - 1)
    put(config, path, bad)
    message = message_of(config)
    assert f"config.{path}: got {bad!r}" in message
    assert f"{field.minimum:g} or more" in message
    if kind is float:
        put(config, path, math.nan)
        assert f"config.{path}: got nan" in message_of(config)


@pytest.mark.parametrize("path", fields_with("below"))
def test_a_number_that_is_too_large_is_named(config, path):
    _, field = ALL_FIELDS[path]
    put(config, path, float(field.below))
    assert f"config.{path}: got {float(field.below)!r}; allowed is less than {field.below:g}" in message_of(config)


@pytest.mark.parametrize("path", ALL_FIELDS)
def test_a_value_of_another_type_is_refused_where_it_is_set(config, path):
    _, field = ALL_FIELDS[path]
    bad = 3 if (field.kind or type(field.default)) is str else "text"
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
    validate(config)
    assert flatten(config)["dataset.image_size"] is None


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
        (("head", "head"), "'head' stands in it twice"),
    ],
)
def test_bad_schedules_are_named(config, schedule, named):
    config.schedule = schedule
    with pytest.raises(UserError, match=named):
        validate(config)


def test_a_stage_that_is_not_scheduled_is_not_checked(config):
    config.stages.block5.epochs = -1
    config.schedule = ("head",)
    validate(config)


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
    flat = flatten(config)
    assert json.loads(json.dumps(flat)) == flat
    assert flat["schedule"] == ["head", "block5"]
    assert flat["stages.block5.freeze"] == "below:block5_conv1"
    # All fields are in it, and nothing else.
    assert {path for path in flat if not path.startswith("stages.")} == set(FIELDS)
    assert {path.split(".", 2)[2] for path in flat if path.startswith("stages.")} == set(STAGE_FIELDS)


def other_value(field):
    kind = field.kind or type(field.default)
    if field.choices:
        return next(choice for choice in field.choices if choice != field.default)
    if kind is bool:
        return not field.default
    if kind is tuple:
        return (*field.default, 1)
    return "other" if kind is str else kind((field.default or 0) + 0.25 if kind is float else (field.default or 0) + 1)


@pytest.mark.parametrize("path", [path for path in ALL_FIELDS if path != "schedule"])
def test_the_digest_is_of_all_but_places_and_habits(config, path):
    before = digested(config)
    put(config, path, other_value(ALL_FIELDS[path][1]))
    ignored = any(path == name or path.startswith(f"{name}.") for name in NOT_IN_DIGEST)
    assert (digested(config) == before) == ignored


def test_what_the_digest_ignores(config):
    ignored = set(flatten(config)) - set(digested(config))
    # A benchmark, a probe and a check train nothing that is kept, runs of studies and ablations are named one by one, a
    # log is only read, and jobs only say where.
    others = ("benchmark.", "probe.", "check.", "study.", "ablation.", "log.", "slurm.")
    assert {path for path in ignored if not path.startswith(others)} == {
        "dataset.root",
        "model.weights_path",
        "init_from",
        "features.budget_gb",
        "checkpoint.every_seconds",
    }

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
