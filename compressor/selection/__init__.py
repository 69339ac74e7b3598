"""Which point to deliver: intervals of the metric, the curve, the choice under the budget, and the masks of the magnitude control."""
