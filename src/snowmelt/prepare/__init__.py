"""Corpora as they are published become manifests, features, vocabularies and graphs."""
