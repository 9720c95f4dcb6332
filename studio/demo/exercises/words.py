"""Word lists that more than one generator draws from."""

from __future__ import annotations

from studio.demo.exercises.base import word_list

NAMES = word_list(
    "Ada Ben Bob Carl Cora Dan Ella Emil Finn Fay Gina Hugo Ida Ivan Jack Jane Kim Leo Max Mia Nina Noah Olga "
    "Otto Paul Rosa Sam Sara Tom Uma Vera Zoe"
)

# Lower-case words of three to six letters for string expressions.
WORDS = word_list("apple cat dog fish bird tree rose moon star sun rain snow lake door lamp book")

# For "odd one out": three of one kind and one of another.
KINDS: dict[str, tuple[str, ...]] = {
    "fruit": ("apple", "pear", "plum", "grape", "lemon", "cherry"),
    "animal": ("cat", "dog", "horse", "cow", "sheep", "goat"),
    "colour": ("red", "blue", "green", "yellow", "purple", "brown"),
    "tool": ("hammer", "saw", "drill", "wrench", "pliers", "axe"),
    "vehicle": ("car", "bus", "train", "truck", "bike", "ship"),
    "garment": ("shirt", "coat", "hat", "sock", "glove", "dress"),
}
