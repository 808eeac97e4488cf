"""A search that forgives typing errors, and takes its time."""

from itertools import product
from typing import Final
from unicodedata import combining, normalize

_COLOURS: Final = ("black", "white", "red", "blue", "green", "copper", "steel", "glass")
_THINGS: Final = ("kettle", "teapot", "cup", "saucer", "spoon", "tray", "strainer", "caddy")
CATALOGUE: Final = [f"{c} {t} {n}" for c, t, n in product(_COLOURS, _THINGS, range(100))]


def search(words: str) -> list[str]:
    """The three products whose names are nearest."""
    wanted = plain(words)
    return sorted(CATALOGUE, key=lambda name: distance(wanted, plain(name)))[:3]


def plain(text: str) -> str:
    """Small letters without accents."""
    kept = ""
    for letter in normalize("NFKD", text.casefold()):
        if not combining(letter):
            kept += letter
    return kept


def distance(one: str, other: str) -> int:
    """Letters to insert, delete or replace (Levenshtein)."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        corner, row[0] = row[0], number
        for column, compared in enumerate(other, 1):
            replaced = corner + (letter != compared)
            corner = row[column]
            row[column] = min(row[column] + 1, row[column - 1] + 1, replaced)
    return row[-1]
