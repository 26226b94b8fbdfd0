"""The steps a batch goes through, in the order data meets them: pure, no step knows another."""
