"""Digests as arrays, held to Python's dictionaries."""

from hypothesis import given
from hypothesis import strategies as st

from vision_transfer.data.dataset import find_digests, stack_digests
from vision_transfer.data.images.near_duplicates import equal_contents

# Few values of either half, so that whole digests and halves of them are often alike.
half = st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\0" * 7 + b"\1", b"\1" + b"\0" * 7])
digests = st.lists(st.tuples(half, half).map(b"".join), max_size=20)


@given(digests, digests)
def test_digests_are_found_at_their_first_place(wanted, present):
    first = {digest: place for place, digest in reversed(list(enumerate(present)))}
    found = find_digests(stack_digests(wanted), stack_digests(present))
    assert found.tolist() == [first.get(digest, -1) for digest in wanted]


@given(digests)
def test_equal_contents_are_paired_with_the_first(contents):
    first = {content: place for place, content in reversed(list(enumerate(contents)))}
    expected = [[first[content], place] for place, content in enumerate(contents) if first[content] != place]
    assert equal_contents(stack_digests(contents)).tolist() == expected
