"""How well documents answer a question by the words that they share with it."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from headscope.errors import HeadscopeError

Relevance = Callable[[str, list[str]], Sequence[float]]  # question, documents -> scores
Words = Literal["tfidf", "bm25"]
_K1, _B = 1.2, 0.75


def tfidf(question: str, documents: list[str]) -> list[float]:
    """Cosine of the question's and each document's TF-IDF vectors, of scikit-learn's defaults.

    The documents of the prompt are the collection that words are counted in.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows, asked = _vectors(TfidfVectorizer(), question, documents)
    return (rows @ asked).tolist()


def bm25(question: str, documents: list[str]) -> list[float]:
    """Okapi BM25 with k1 = 1.2 and b = 0.75, over the documents of the prompt.

    Source: Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond";
    idf = log(1 + (N - n + 0.5) / (n + 0.5)), which is never negative, as in Lucene.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    counts, asked = _vectors(CountVectorizer(), question, documents)
    n, holding = len(documents), (counts > 0).sum(0)
    idf = np.log1p((n - holding + 0.5) / (holding + 0.5))
    lengths = counts.sum(1, keepdims=True)
    norm = _K1 * (1 - _B + _B * lengths / lengths.mean())
    return ((counts * (_K1 + 1) / (counts + norm)) @ (idf * asked)).tolist()


WORDS: dict[str, Relevance] = {"tfidf": tfidf, "bm25": bm25}


def _vectors(
    vectorizer: Any, question: str, documents: list[str]
) -> tuple[Float[np.ndarray, "document word"], Float[np.ndarray, " word"]]:
    try:
        rows = vectorizer.fit_transform(documents).toarray()
    except ValueError as error:
        raise HeadscopeError(
            "The documents hold no word of two letters or more to compare with the question; give "
            "their relevance as numbers, one for each document."
        ) from error
    asked = vectorizer.transform([question]).toarray()[0]
    return rows.astype(np.float64), asked.astype(np.float64)
