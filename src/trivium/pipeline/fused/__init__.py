"""Fusion for people with a classifier downstream: scikit-learn estimators over texts and files, and their commands."""
