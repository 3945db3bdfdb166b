"""Every word of the contract is quoted by the test that holds the server to it."""

from __future__ import annotations

from support.quotes import contract, places, quotes


def test_quotes_are_exact():
    text = contract()
    wrong = [f"{where}: {' '.join(words)}" for where, words in quotes() if not places(words, text)]
    assert not wrong


def test_every_word_is_quoted():
    text = contract()
    quoted: set[int] = set()
    for _, sought in quotes():
        for place in places(sought, text):
            quoted.update(place)
    left = [
        f"{' '.join(text[max(0, at - 3) : at])} >>> {text[at]}"
        for at in range(len(text))
        if at not in quoted and (at == 0 or at - 1 in quoted or at - 1 not in range(len(text)))
    ]
    assert not left, "not quoted from here on:\n" + "\n".join(left)
