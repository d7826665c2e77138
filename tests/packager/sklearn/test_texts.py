"""Free text: words found as scikit-learn finds them, in any script, or a refusal."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from edge_agent import Model
from edge_contract.errors import BuildFault, InputFault
from edge_pack import probes
from edge_pack.intake import Rows

SEED = 5
WORDS = ["Leck", "an", "der", "Überdruck", "pump", "valve_3", "ÉCHEC", "12.5", "bar", "don't",
         "насос", "ТЕЧЬ", "ポンプ", "x²", "-", "ok!", "e\u0301tat", "Straße"]  # fmt: skip


@pytest.fixture(scope="module")
def notes() -> tuple[pd.DataFrame, pd.Series]:
    """300 notes in several scripts, some of them empty."""
    rng = np.random.default_rng(SEED)
    texts = [" ".join(rng.choice(WORDS, rng.integers(0, 9))) for _ in range(300)]
    frame = pd.DataFrame({"note": texts, "site": rng.choice(["graz", "lyon"], 300),
                          "bar": np.round(rng.gamma(2, 3, 300), 1)})  # fmt: skip
    leaks = frame.note.str.contains("Leck|ТЕЧЬ|12.5")
    return frame, pd.Series(np.where(leaks, "leak", "fine"), name="state")


VECTORIZERS = {
    "words": TfidfVectorizer,
    "counts": CountVectorizer,
    "pairs": lambda: TfidfVectorizer(ngram_range=(1, 2)),
    "only pairs": lambda: CountVectorizer(ngram_range=(2, 2)),
    "triples": lambda: TfidfVectorizer(ngram_range=(1, 3), min_df=2, sublinear_tf=True),
    "cased": lambda: TfidfVectorizer(lowercase=False),
    "binary": lambda: CountVectorizer(binary=True, max_features=8),
    "stop words": lambda: CountVectorizer(stop_words=["an", "der"]),
    "single letters": lambda: TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", norm="l1"),
    "no norm": lambda: TfidfVectorizer(norm=None, use_idf=False),
}


@pytest.mark.parametrize("name", VECTORIZERS)
def test_every_word_is_found(name: str, notes: Any, pack: Any) -> None:
    frame, target = notes
    model = make_pipeline(VECTORIZERS[name](), LogisticRegression()).fit(frame.note, target)
    built = pack(model, frame[["note"]].join(target), "state", quantize="none")
    assert built.manifest.parity.flips == 0
    assert built.manifest.parity.diff_max < 1e-4, f"seed {SEED}"
    (feature,) = built.manifest.features
    assert feature.type == "text" and feature.lower == (name != "cased")


def test_text_beside_numbers_and_categories(notes: Any, pack: Any) -> None:
    frame, target = notes
    columns = ColumnTransformer([
        ("note", FeatureUnion([("a", TfidfVectorizer()), ("b", CountVectorizer())]), "note"),
        ("site", OneHotEncoder(handle_unknown="ignore"), ["site"]),
        ("bar", StandardScaler(), ["bar"]),
    ])  # fmt: skip
    model = make_pipeline(columns, LogisticRegression()).fit(frame, target)
    built = pack(model, frame.join(target), "state", quantize="none")
    assert built.manifest.parity.flips == 0 and built.manifest.parity.diff_max < 1e-4
    types = {feature.name: feature.type for feature in built.manifest.features}
    assert types == {"note": "text", "site": "category", "bar": "number"}


def test_a_device_answers_texts_and_counts_none_of_them(notes: Any, pack: Any) -> None:
    frame, target = notes
    model = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(frame.note, target)
    out = pack(model, frame[["note"]].join(target), "state").config.out
    device = Model.open(out)
    texts = ["", "ÜBERDRUCK 12.5 БАР", "ТЕЧЬ насос", "echec ÉCHEC"]
    found = device.predict([{"note": text} for text in texts])
    assert [answer.label for answer in found] == model.predict(texts).tolist()
    with pytest.raises(InputFault, match="'note' is missing"):
        device.predict({"note": None})


@pytest.mark.parametrize(
    ("vectorizer", "finding", "way_out"),
    [
        (HashingVectorizer(n_features=32), "computes its hash", "TfidfVectorizer"),
        (TfidfVectorizer(analyzer="char_wb"), "analyzer='char_wb'", "analyzer='word'"),
        (TfidfVectorizer(analyzer="char"), "analyzer='char'", "analyzer='word'"),
        (TfidfVectorizer(tokenizer=str.split), "its tokenizer is Python code", "tokenizer=None"),
        (TfidfVectorizer(strip_accents="unicode"), "strip_accents", "strip_accents=None"),
        (TfidfVectorizer(token_pattern=r"[a-z]+"), "token pattern", "default token_pattern"),
        (
            CountVectorizer(stop_words="english", ngram_range=(1, 2)),
            "between the words of its n-grams",
            "stop_words=None",
        ),
    ],
    ids=["hash", "char_wb", "char", "tokenizer", "accents", "pattern", "stop words"],
)
def test_what_a_runtime_cannot_do_is_refused(
    vectorizer: Any, finding: str, way_out: str, notes: Any, pack: Any
) -> None:
    frame, target = notes
    model = make_pipeline(vectorizer, LogisticRegression()).fit(frame.note, target)
    with pytest.raises(BuildFault, match=re.escape(finding)) as refusal:
        pack(model, frame[["note"]].join(target), "state")
    assert way_out in refusal.value.advice


def test_hostile_texts_surround_the_given_ones() -> None:
    column = np.empty(2, dtype=object)
    column[:] = ["Leck am Ventil", "ok"]
    drawn = probes.texts(Rows(2, {"note": column}, {}), ["note"])
    found = drawn.columns["note"].tolist()
    assert {"", "LECK AM VENTIL", "Leck-am-Ventil"} <= set(found)
    assert probes.texts(Rows(2, {"note": column}, {}), []).count == 0
