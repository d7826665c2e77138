"""Word counts and tf-idf of free text, token by token as scikit-learn finds them.

Guards: the tokenizer's pattern is Python's ``\\w`` written out for RE2, where ``\\w`` means ASCII
only; lower case is the agent's work (``str.lower``, as scikit-learn's), because the runtime's own
depends on the locales of a device; every setting that would be silently otherwise is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_pack.estimators.emit import PURPOSE, Emitter
from edge_pack.extras import need

VECTORIZERS = ("CountVectorizer", "TfidfVectorizer")
_WORD = r"[\pL\pN_]"
"""What ``\\w`` matches in Python's re: letters, numbers of every script, and the underscore."""
PATTERNS = {r"(?u)\b\w\w+\b": _WORD + _WORD + "+", r"(?u)\b\w+\b": _WORD + "+"}
"""scikit-learn's token pattern -> the same for RE2: the longest runs, so no boundary is needed."""
_PAD = "\x00"
_NONE, _ONE = np.zeros(1, dtype=np.float32), np.ones(1, dtype=np.float32)


def unsupported(step: Any) -> tuple[str, str] | None:
    """What of a vectorizer's settings cannot be kept, and the way out; None when all can."""
    if step.analyzer != "word":
        return (
            f"analyzer={step.analyzer!r} takes text apart in ways no runtime operator does",
            "Train with analyzer='word'.",
        )
    for name in ("preprocessor", "tokenizer"):
        if getattr(step, name) is not None:
            return (
                f"its {name} is Python code, which a device without that code cannot run",
                f"Train with {name}=None.",
            )
    if step.strip_accents is not None:
        return (
            f"strip_accents={step.strip_accents!r} has no runtime operator",
            "Train with strip_accents=None.",
        )
    if step.token_pattern not in PATTERNS:
        return (
            f"its token pattern {step.token_pattern!r} may mean something else to a runtime",
            "Train with the default token_pattern.",
        )
    if step.stop_words is not None and tuple(step.ngram_range) != (1, 1):
        return (
            "stop words are taken out between the words of its n-grams",
            "Train with stop_words=None, or with ngram_range=(1, 1).",
        )
    return None


def _counts(e: Emitter) -> Any:
    """Occurrences of each known n-gram [rows, n-grams], as numbers."""
    step = e.step
    flat = e.Reshape(e.operator.inputs[0], np.array([-1], dtype=np.int64))
    ngrams = sorted((term.count(" ") + 1, term.split(" "), column)
                    for term, column in step.vocabulary_.items())  # fmt: skip
    starts: list[int] = []
    pool: list[str] = []
    for size, words, _ in ngrams:
        starts += [len(pool)] * (size - len(starts))
        pool += words
    starts += [len(pool)] * (step.ngram_range[1] - len(starts))
    # Marks at both ends: without them a batch of empty texts has no column to count in.
    tokens = e.contrib(
        "Tokenizer", flat,
        mark=1, mincharnum=1, pad_value=_PAD, tokenexp=PATTERNS[step.token_pattern],
    )  # fmt: skip
    return e.TfIdfVectorizer(
        tokens, min_gram_length=int(step.ngram_range[0]), max_gram_length=int(step.ngram_range[1]),
        max_skip_count=0, mode="TF", ngram_counts=starts, pool_strings=pool,
        ngram_indexes=[column for _, _, column in ngrams],
    )  # fmt: skip


def _weighted(e: Emitter, counts: Any) -> Any:
    """Term frequencies by inverse document frequency, each row to unit length."""
    step = e.step
    if step.sublinear_tf:
        logs = e.Add(e.Log(e.Max(counts, _ONE)), _ONE)
        counts = e.Where(e.Greater(counts, _NONE), logs, counts)
    if step.use_idf:
        counts = e.Mul(counts, np.asarray(step.idf_, dtype=np.float32))
    if step.norm is None:
        return counts
    reduce = e.ReduceL1 if step.norm == "l1" else e.ReduceL2
    length = reduce(counts, axes=[1], keepdims=1)
    return e.Div(counts, e.Where(e.Equal(length, _NONE), _ONE, length))


def _convert(scope: Any, operator: Any, container: Any) -> None:
    e = Emitter(container, scope, operator)
    counts = _counts(e)
    if e.step.binary:
        counts = e.Min(counts, _ONE)
    weighted = hasattr(e.step, "sublinear_tf")
    e.give(_weighted(e, counts) if weighted else counts)


def _shape(operator: Any) -> None:
    types = need("skl2onnx.common.data_types", PURPOSE)
    width = len(operator.raw_operator.vocabulary_)
    operator.outputs[0].type = types.FloatTensorType([None, width])


def teach() -> None:
    """Register both vectorizers with skl2onnx."""
    supported = need("skl2onnx._supported_operators", PURPOSE)
    text = need("sklearn.feature_extraction.text", PURPOSE)
    for name in VECTORIZERS:
        supported.update_registered_converter(
            getattr(text, name), f"EdgePack{name}", _shape, _convert
        )
