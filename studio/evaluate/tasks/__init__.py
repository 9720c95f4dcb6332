"""Questions with known answers: their format, subsets of them, how they are put to a model, and who is right."""
