"""Published numbers of arXiv 2006.12878 (version 1): Tables 3, 4, A.2 and A.4, in percent, and cosines.

Rows are models as in `graphs.presets.MODELS`; "gae" is the graph auto-encoder. Data sets are Cora, CiteSeer, PubMed.
"""

from __future__ import annotations

DATASETS = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}
FOLDS = "DNAConv alone uses five stratified folds (one to train on, one to validate, three to test), as in the paper."
ACCURACY: dict[str, dict[str, tuple[float, float, float]]] = {  # Table 3; shallow: Table A.4
    "cheb": {"bp": (79.2, 69.5, 79.5), "dfa": (75.4, 67.6, 75.7), "shallow": (23.3, 27.4, 37.6)},
    "gcn": {"bp": (80.1, 71.6, 78.8), "dfa": (79.9, 69.4, 77.8), "shallow": (37.0, 33.8, 44.8)},
    "spline": {"bp": (81.0, 70.0, 77.5), "dfa": (77.7, 69.8, 77.2), "shallow": (39.6, 30.1, 44.2)},
    "gat": {"bp": (82.6, 72.0, 77.7), "dfa": (80.6, 71.2, 77.1), "shallow": (59.4, 49.8, 67.8)},
    "dna": {"bp": (84.6, 73.4, 87.2), "dfa": (82.9, 70.8, 79.9), "shallow": (30.2, 24.0, 42.2)},
}
AUTOENCODER: dict[str, dict[str, tuple[float, float]]] = {  # Table 4: AUC and average precision
    "cora": {"bp": (91.8, 91.8), "dfa": (90.0, 90.0)},
    "citeseer": {"bp": (88.6, 89.5), "dfa": (87.9, 88.9)},
    "pubmed": {"bp": (96.7, 96.6), "dfa": (94.5, 94.5)},
}
ALIGNMENT = {"cheb": 0.87, "gcn": 0.77, "spline": 0.56, "gat": 0.63, "dna": 0.92}  # Table A.2: Cora, deepest DFA layer


def accuracy(model: str, method: str, dataset: str) -> float:
    """Test accuracy in percent."""
    return ACCURACY[model][method][list(DATASETS).index(dataset)]
