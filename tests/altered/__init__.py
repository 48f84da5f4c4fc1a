"""One file for each intervention: recipes to test, and the same method written out by hand.

`methods(model)` gives recipes that change something on prompts of 24 tokens. `by_hand(method)` is
a middleware that does the same in dense float64, step by step, and shares no code with the method;
a pattern edit gives `edit(method, attention, pattern)` instead, from a dense pattern
[batch, head, query, key] to another. A method that acts on prompts or logits has tests of its own
under tests/interventions/, and says `own = "tests/interventions/test_....py"`.
"""
