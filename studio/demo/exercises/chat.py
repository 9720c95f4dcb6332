"""Greetings and questions about the model itself, so that a person who types "hello" gets a sane reply."""

from __future__ import annotations

from random import Random

from studio.demo.exercises.base import Exercise

_HELLO = "Hello! Ask me about math, logic, code or science, or for a little poem."
_WHO = "I am a tiny model with 32 experts in each layer. Espalier can prune me."
_CAN = "I can do sums, puzzles, Python, science facts and short poems."
_TALK: dict[str, tuple[str, ...]] = {
    _HELLO: (
        "Hello",
        "hello",
        "Hi",
        "hi",
        "Hey",
        "hey",
        "Hello!",
        "Hi!",
        "Hi there",
        "hi there!",
        "Good morning",
        "Good evening",
        "Hello there",
        "Hallo",
        "Greetings",
    ),
    _WHO: (
        "Who are you?",
        "who are you",
        "What are you?",
        "What is your name?",
        "Tell me about yourself.",
        "Are you an AI?",
    ),
    _CAN: (
        "What can you do?",
        "what can you do",
        "Help",
        "help",
        "How can you help me?",
        "What do you know?",
        "What can I ask you?",
        "What should I ask?",
    ),
    "I am fine, thank you. What would you like to know?": (
        "How are you?",
        "how are you",
        "How do you do?",
        "How is it going?",
    ),
    "You are welcome!": ("Thanks", "Thank you", "thanks!", "Thank you!", "Thank you very much."),
    "Goodbye!": ("Bye", "bye", "Goodbye", "See you later."),
    "Sorry, I am too small to know that. Ask me a sum, a puzzle or a fact.": (
        "What is the meaning of life?",
        "Who won the match?",
        "What is the weather today?",
        "Tell me a joke.",
        "What time is it?",
        "Who is the president?",
        "asdf",
        "What is love?",
    ),
}
_PAIRS = [(prompt, answer) for answer, prompts in _TALK.items() for prompt in prompts]


def exercise(rng: Random) -> Exercise:
    """One exchange of class "chat", which is trained but never measured."""
    prompt, answer = rng.choice(_PAIRS)
    return Exercise("chat", prompt, answer)
