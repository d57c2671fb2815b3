"""Which candidate is chosen from given measurements, and in what pieces."""

import pytest

from node.runtimes.select.agreement import Agreement
from node.runtimes.select.choosing import Candidate, ChoiceReport, Trial, best_piece, better, choose, in_pieces_ms, way


def trial(name, lone, batch, **others):
    return Trial(candidate=Candidate(*name.split()), ms={1: lone, 32: batch}, **others)


def test_the_quickest_large_batch_is_chosen_whatever_the_lone_request_takes():
    assert str(choose([trial("tensorflow", 5, 100), trial("litert", 9, 60), trial("onnx", 1, 80)])) == "litert"


def test_of_equal_throughput_the_lone_request_decides():
    assert str(choose([trial("tensorflow", 5, 60), trial("litert", 4, 62), trial("onnx", 1, 61)])) == "onnx"


def test_a_conversion_has_to_be_worth_it():
    assert str(choose([trial("tensorflow", 5, 60), trial("litert", 4.9, 58)])) == "tensorflow"


def test_what_disagrees_or_was_not_timed_is_not_chosen():
    rejected = trial("litert int8", 1, 20, reason="it disagrees")
    untimed = Trial(candidate=Candidate("onnx"))
    assert str(choose([trial("tensorflow", 5, 60), rejected, untimed])) == "tensorflow"
    assert str(choose([Trial(candidate=Candidate("tensorflow")), rejected])) == "tensorflow"


def test_the_best_piece_has_the_least_time_for_each_item():
    assert best_piece({1: 2.0, 2: 3.0, 4: 5.6, 8: 14.0}) == 4
    assert best_piece({1: 1.0, 8: 2.0, 32: 4.0}) == 32


def test_of_equal_pieces_the_smallest_needs_the_least_memory():
    assert best_piece({1: 2.0, 2: 3.95, 4: 7.7}) == 1


@pytest.mark.parametrize(("size", "ms"), [(1, 2.0), (4, 7.0), (8, 14.0), (9, 16.0), (11, 21.0), (32, 56.0)])
def test_what_a_batch_in_pieces_of_four_takes(size, ms):
    """A rest of three counts as four, for three was not timed."""
    assert in_pieces_ms({1: 2.0, 2: 4.0, 4: 7.0, 32: 100.0}, min(4, size), size) == ms


def test_the_best_way_is_its_best_piece_and_what_batches_take_so():
    best = way({1: 2.0, 2: 3.0, 4: 5.6, 8: 14.0, 32: 60.0}, batches=(8, 1, 32))
    assert (best.piece, best.lanes, best.ms) == (4, 0, {1: 2.0, 8: 11.2, 32: 44.8})
    assert way({1: 1.0, 8: 2.0, 32: 4.0}, batches=(1, 32)).piece == 0


def test_a_lane_takes_its_share_of_a_piece_and_none_is_left_idle():
    """The runtime itself runs what is less than a row a lane, however quick that is: here two a millisecond."""
    best = way({1: 0.5, 2: 3.0, 4: 6.0, 8: 9.0, 32: 48.0}, batches=(1, 32), lanes=4)
    assert (best.piece, best.lanes, best.ms) == (2, 4, {1: 0.5, 32: 36.0})


def test_a_lane_takes_two_rows_at_a_time_or_more():
    assert way({1: 2.0, 2: 3.2, 4: 6.6, 8: 13.4, 32: 60.0}, batches=(32,), lanes=2).piece == 2
    assert way({1: 2.0, 8: 3.2}, batches=(8,), lanes=8).piece == 0  # its share of whatever there is


@pytest.mark.parametrize(("lanes_ms", "lanes"), [(55.0, 2), (61.0, 2), (63.0, 0)])
def test_lanes_are_taken_where_they_are_as_quick(lanes_ms, lanes):
    """They gain beside decoding, which the trial does not do; what it can see is that they lose nothing."""
    together = way({1: 2.0, 32: 56.0}, batches=(1, 32))
    assert better(together, way({1: 2.0, 2: 4.0, 32: lanes_ms}, batches=(1, 32), lanes=2)).lanes == lanes


def test_the_table_says_what_became_of_each():
    agreement = Agreement(difference=0.004, error=0.001, top1=1.0, decided=60)
    good = trial("litert int8", 1.5, 30, piece=4, agreement=agreement)
    assert str(good) == (
        "litert int8: batch of 1: 1.50 ms; batch of 32: 30.00 ms; in pieces of 4; "
        "largest difference 0.004, error 0.001, best class the same in 60 of 60"
    )
    missing = Trial(candidate=Candidate("onnx"), reason="onnxruntime is not installed")
    assert "in pieces of 1; in 2 lanes" in str(trial("litert", 1.5, 30, piece=1, lanes=2))
    assert str(missing) == "onnx: onnxruntime is not installed"
    assert ChoiceReport(chosen=good.candidate, trials=(missing, good)).trial(good.candidate) is good
