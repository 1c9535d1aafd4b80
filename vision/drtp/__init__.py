"""DRTP: direct random target projection (Frenkel, Lefebvre and Bol 2021)."""
