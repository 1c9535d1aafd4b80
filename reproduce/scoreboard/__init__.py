"""The scoreboard: every training rule on one model of every task, tuned by one grid, at equal steps."""
