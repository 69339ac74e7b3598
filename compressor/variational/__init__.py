"""The mathematics: KL divergences, the posterior q(w) and the evidence lower bound. Knows no graph operator, file or loop."""
