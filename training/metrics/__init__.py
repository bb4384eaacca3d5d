"""Figures of merit, a module for each kind of answer, and how a confusion matrix is drawn."""
