"""ImageNet's names, the likeliest classes, and classes that users name."""

import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.tasks.explain.load import class_number, imagenet_classes, top_predictions


def test_the_names_are_those_of_keras():
    names = imagenet_classes()
    assert len(names) == 1000
    known = {0: "tench", 101: "tusker", 281: "tabby", 385: "Indian_elephant", 386: "African_elephant"}
    assert {number: names[number] for number in known} == known
    assert names[999] == "toilet_tissue"


def test_the_likeliest_of_a_softmax():
    logits = np.log(np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]))
    (first, second) = top_predictions(logits, ("a", "b", "c"), top=2)
    assert first == [(1, "b 0.500"), (2, "c 0.300")] and second == [(0, "a 0.600"), (2, "c 0.300")]


def test_one_sigmoid_gives_two_classes():
    assert top_predictions(np.array([[np.log(4.0)]]), ("cat", "dog")) == [[(1, "dog 0.800"), (0, "cat 0.200")]]


def test_a_class_by_name_or_number():
    names = imagenet_classes()
    assert class_number("African_elephant", names) == 386
    assert class_number("386", names) == 386
    assert class_number("7", tuple("9876543210")) == 2
    with pytest.raises(UserError, match="did you mean African_elephant"):
        class_number("african_elephant", names)
    with pytest.raises(UserError, match="1000 classes range from tench to toilet_tissue"):
        class_number("zzzzzz", names)
    with pytest.raises(UserError, match="several classes have this name; give the number of one: 134 and 517"):
        class_number("crane", names)
    with pytest.raises(UserError, match="known are cat, dog"):
        class_number("2", ("cat", "dog"))
