"""Manifests for Kubernetes (docs/KUBERNETES.md), and what writes those that are derived from other files."""
