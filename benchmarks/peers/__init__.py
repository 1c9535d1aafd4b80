"""Other people's training code, measured in the same run as ours.

`alongside.py` has the peers that live with this project's requirements. `biotorch.py` and `deepctr.py` are commands of
their own: their packages are in folders that only those processes look into (`process.py`, `install.py`).
"""
