"""Two pieces of work at a time: the same results, errors in order, and no second piece left running."""

import threading

import pytest

from broker_topics.together import together


def test_the_second_runs_while_the_first_does():
    begun, done = threading.Event(), threading.Event()

    def first():
        assert begun.wait(10)
        done.set()
        return threading.current_thread()

    def second():
        begun.set()
        assert done.wait(10)
        return threading.current_thread()

    one, other = together(first, second, worth_it=True)
    assert one is threading.current_thread()
    assert other is not one


def test_where_it_is_not_worth_it_they_come_one_after_the_other():
    here = threading.current_thread()
    order = []

    def note(name):
        order.append((name, threading.current_thread()))

    together(lambda: note("first"), lambda: note("second"), worth_it=False)
    assert order == [("first", here), ("second", here)]


def test_the_second_may_have_two_pieces_of_its_own():
    def inner():
        return together(lambda: 2, lambda: 3, worth_it=True)

    assert together(lambda: 1, inner, worth_it=True) == (1, (2, 3))


def test_an_error_of_the_first_waits_for_the_second():
    begun, ended = threading.Event(), threading.Event()

    def first():
        assert begun.wait(10)
        raise ValueError("first")

    def second():
        begun.set()
        ended.wait(0.05)
        ended.set()

    with pytest.raises(ValueError, match="first"):
        together(first, second, worth_it=True)
    assert ended.is_set()


def test_an_error_of_the_second_is_raised():
    def second():
        raise ValueError("second")

    with pytest.raises(ValueError, match="second"):
        together(lambda: 1, second, worth_it=True)
