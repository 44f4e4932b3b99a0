"""Classic classifiers on pooled features: logistic regression and the linear support vector machine."""
