"""DFA through a layer that loses part of its gradients (Launay et al. 2019)."""
