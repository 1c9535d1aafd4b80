"""Published numbers of the click tables.

Tables 2 and A.3 of arXiv 2006.12878 are taken from comments of its code release (`recommender-systems/reproduce_*.sh`),
which give five digits where the paper prints four; version 1 of the paper lacks AutoInt. Table A.1 is from version 1:
the mean cosine at the deepest DFA layer on a random batch of 512 rows of Criteo, after 15 epochs. Criteo_x1 by
backpropagation is from BARS (`criteo_x1.csv` of github.com/reczoo/BARS), whose models were tuned by its authors.
"""

from __future__ import annotations

CRITEO = {  # preset: test AUC, test log loss
    "fm_bp": (0.79148, 0.46870),
    "deepfm_bp": (0.79536, 0.46104),
    "deepfm_dfa": (0.79558, 0.46238),
    "deepfm_shallow": (0.79202, 0.46824),
    "dcn_bp": (0.81036, 0.44141),
    "dcn_dfa": (0.80090, 0.45017),
    "dcn_shallow": (0.73240, 0.50102),
    "autoint_bp": (0.79367, 0.46200),
    "autoint_dfa": (0.79055, 0.45996),
    "autoint_shallow": (0.78603, 0.46864),
    "afn_bp": (0.79331, 0.46299),
    "afn_dfa": (0.79240, 0.46210),
    "afn_shallow": (0.78593, 0.46853),
}
ALIGNMENT = {"dcn": 0.40, "afn": 0.49}  # standard deviations over rows: 0.91 and 0.08
CRITEO_X1 = {"fm_bp": 0.8022, "deepfm_bp": 0.8137, "dcn_bp": 0.8138, "autoint_bp": 0.8126, "afn_bp": 0.8107}
