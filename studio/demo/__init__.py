"""The demo model: a tiny Gemma 4 mixture of experts, its tokenizer, and the exercises it is taught with.

The model exists so that every station of the journey can be tried, offline and in minutes, on a model whose
experts have really learnt something: dropping the wrong ones visibly hurts, dropping the right ones does not.
"""
