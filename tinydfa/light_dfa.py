"""`tinydfa.light_dfa` of the 2020 package, see `tinydfa.release2020`."""

from tinydfa.release2020.light import DFA, DFALayer

__all__ = ["DFA", "DFALayer"]
