"""The online surface: requests in, answers out, by the same steps and the same rollout as the stream."""
