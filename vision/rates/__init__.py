"""Learning rates for rows that run shorter than published."""
