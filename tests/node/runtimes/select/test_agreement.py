"""When a conversion says what the original says, and when it does not."""

import numpy as np
import pytest

from node.runtimes.select.agreement import Agreement, compare, joined, objection

RNG = np.random.default_rng(0)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def verdict(original, other, quantize=""):
    return objection(compare({"scores": original}, {"scores": other}), quantize)


TRAINED = softmax(RNG.normal(size=(64, 10)) * 8)
UNTRAINED = softmax(RNG.normal(size=(64, 1000)) * 1e-4)


def test_rounding_is_no_disagreement():
    assert verdict(TRAINED, TRAINED * np.float32(1 + 1e-5)) == ""
    assert compare({"scores": TRAINED}, {"scores": TRAINED * np.float32(1 + 1e-5)}).top1 == 1.0


def test_a_shuffled_output_disagrees():
    assert "difference" in verdict(TRAINED, TRAINED[:, ::-1])
    assert "error" in verdict(TRAINED, TRAINED[:, ::-1], "int8")


def test_scores_that_are_all_but_equal_are_not_judged_by_which_is_largest():
    noisy = UNTRAINED + RNG.normal(size=UNTRAINED.shape).astype(np.float32) * 1e-7
    agreement = compare({"scores": UNTRAINED}, {"scores": noisy})
    assert (noisy.argmax(axis=1) != UNTRAINED.argmax(axis=1)).any()
    assert (agreement.top1, agreement.decided) == (None, 0)
    assert objection(agreement, "") == objection(agreement, "int8") == ""
    assert "no sample has a clear best class" in str(agreement)


def test_a_model_reduced_to_zeros_disagrees_though_its_scores_are_all_but_equal():
    assert "error 1" in verdict(UNTRAINED, np.zeros_like(UNTRAINED), "int8")
    assert "difference 1" in verdict(UNTRAINED, np.zeros_like(UNTRAINED))


def test_one_turned_lead_is_too_many_in_float_and_not_in_int8():
    turned = TRAINED.copy()
    clear = int(np.argmax(np.sort(TRAINED)[:, -1] - np.sort(TRAINED)[:, -2]))
    turned[clear] = np.roll(turned[clear], 1)
    agreement = compare({"scores": TRAINED}, {"scores": turned})
    assert agreement.top1 == pytest.approx(1 - 1 / agreement.decided)
    assert objection(agreement, "int8") == ""
    assert objection(agreement, "") != ""
    only_lead = Agreement(difference=0.0, error=0.0, top1=agreement.top1, decided=agreement.decided)
    assert "best class" in objection(only_lead, "")


def test_int8_that_turns_many_leads_disagrees():
    worse = Agreement(difference=0.5, error=0.2, top1=0.9, decided=60)
    assert objection(worse, "int8") == "it disagrees: best class the same in 90.0%, less than 95%"


def test_differences_are_relative_to_the_size_of_the_output():
    logits = RNG.normal(size=(8, 5)).astype(np.float32)
    small, large = (compare({"y": logits * scale}, {"y": logits * scale * 1.001}) for scale in (1e-3, 1e3))
    assert small.difference == pytest.approx(large.difference, rel=1e-3) == pytest.approx(0.001, rel=1e-2)


def test_the_worst_output_counts():
    good, bad = np.ones((4, 3), np.float32), np.full((4, 3), 2, np.float32)
    agreement = compare({"a": good, "b": good}, {"a": good, "b": bad})
    assert (agreement.difference, agreement.error) == (1.0, 1.0)


def test_whole_numbers_truths_and_strings_are_equal_or_not():
    classes = np.arange(8)
    assert compare({"class": classes}, {"class": classes}).difference == 0
    assert compare({"class": classes}, {"class": classes ^ 1}).difference == 1
    words = np.array([b"a", b"b"], np.object_)
    assert compare({"word": words}, {"word": np.array([b"a", b"c"], np.object_)}).difference == 0.5


def test_what_is_not_finite_agrees_with_itself_only():
    odd = np.array([[np.nan, np.inf, 1.0]], np.float32)
    assert compare({"y": odd}, {"y": odd.copy()}).difference == 0
    for other in ([[0.0, np.inf, 1.0]], [[np.nan, -np.inf, 1.0]], [[np.nan, np.inf, np.nan]]):
        agreement = compare({"y": odd}, {"y": np.array(other, np.float32)})
        assert agreement.difference == np.inf
        assert objection(agreement, "")
        assert objection(agreement, "int8")


def test_parts_are_put_together_in_order():
    parts = [{"y": np.array([1, 2])}, {"y": np.array([3])}]
    assert joined(parts)["y"].tolist() == [1, 2, 3]
