"""How fast a profile is: headscope's kernels beside the best dense ones and stock alternatives.

Every contender of a row is timed once in every round, and what is compared is the median over
rounds of ratios within a round: a GPU that slows down under load slows all of them down.
"""
