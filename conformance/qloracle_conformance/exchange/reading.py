"""Reading the text token by token; every complaint names file and line."""

from collections.abc import Iterable, Iterator
from math import prod
from typing import NoReturn

from qloracle_conformance.arrays import HostArray
from qloracle_conformance.exchange.words import TextError, array_of, shape_of
from qloracle_conformance.files import FileError


class CutShortError(Exception):
    """The text ended inside a record."""


class TokenLines:
    """The lines of a text, split into tokens, one after another; empty lines mean nothing."""

    def __init__(self, name: str, lines: Iterable[str]) -> None:
        """Keep the lines and how messages call them."""
        self.name, self.number = name, 0
        self._lines: Iterator[str] = iter(lines)

    def next(self) -> list[str] | None:
        """Return the tokens of the next line that has any; None at the end."""
        try:
            for line in self._lines:
                self.number += 1
                tokens = line.split()
                if tokens:
                    return tokens
        except UnicodeDecodeError:
            self.number += 1
            self.reject("the text must be UTF-8")
        return None

    def following(self) -> list[str]:
        """Return the tokens of the next line.

        Raises
        ------
        CutShortError
            If there is none.
        """
        tokens = self.next()
        if tokens is None:
            raise CutShortError
        return tokens

    def reject(self, rule: str) -> NoReturn:
        """Raise `FileError` that names file, line and rule."""
        raise FileError(f"{self.name}, line {self.number}: {rule}")

    def array(self, tokens: list[str]) -> HostArray:
        """Return the array whose type and shape are given, and whose words stand on the lines that follow."""
        try:
            dtype, shape = shape_of(tokens)
            wanted, words = prod(shape), list[str]()
            while len(words) < wanted:
                words += self.following()
            if len(words) > wanted:
                raise TextError(f"an array of shape {shape} has {wanted} words, this line is beyond them")
            return array_of(dtype, shape, words)
        except TextError as error:
            self.reject(str(error))
