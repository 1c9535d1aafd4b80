"""Tests of `tinydfa`: each file one family of rules, each oracle plain torch."""
