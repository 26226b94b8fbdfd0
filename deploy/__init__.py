"""How the product is run: images, manifests, dashboards, and a local stack that needs no Docker."""
