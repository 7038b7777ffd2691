"""Every kind of fault, a few times each; ``make faults`` tries all of them."""

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the faults are injected with Linux's own tools", allow_module_level=True)

from tests.faults import common

common.load()

QUICK = [one for one in common.FAULTS if one.quick]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return common.Lab(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("one", QUICK, ids=[one.inject.__name__ for one in QUICK])
def test_nothing_is_lost_to(lab, one):
    try:
        tally = one.inject(lab, one.quick)
    except common.Skipped as reason:
        pytest.skip(str(reason))
    finally:
        lab.clear()
    assert tally.attempts
    assert tally.failures == []


def test_a_failed_attempt_is_counted_and_the_next_one_goes_on():
    tally = common.Tally()
    for number in range(3):
        with tally.attempt(number):
            assert number != 1, "lost"
    assert (tally.attempts, tally.survived, tally.failures) == (3, 2, ["1: lost"])


def test_a_share_of_the_cases_holds_the_first_and_the_last():
    assert common.some(range(9), 0.33) == [0, 4, 8]
    assert common.some("abc", 0.01) == ["a"]
    assert common.some("abc", 1) == ["a", "b", "c"]


def test_the_harness_sees_a_file_that_is_not_whole(lab):
    """The files that `kills` compares after a fault: here of a save that is not atomic."""
    from tests.faults.limits import _assert_whole
    from unetseg.errors import InputError

    home = lab.copy(lab.made)
    store = home / "data" / "patches.h5"
    store.write_bytes(store.read_bytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        _assert_whole(home)
