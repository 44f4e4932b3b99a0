"""Classic classifiers on pooled features: logistic regression, of all classes or by pairs, and a linear SVM."""
